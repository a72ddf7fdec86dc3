"""llama.cpp's server on a GGUF file, in a process of its own, which may abort. Needs PyPI's xllamacpp."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Request = tuple[str, dict[str, Any]]
"""A path, such as `tokenize`, and what is sent there."""


def ask(file: Path, requests: Sequence[Request], context: int) -> list[dict[str, Any]]:
    """What the server answers to `requests` on `file`, with a context of so many tokens.

    Raises RuntimeError with the end of what it printed if it ends otherwise.
    """
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([str(file), requests, context]),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr[-2000:].split()))
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _serve() -> None:
    """In the process of `ask`: a file, requests and a context on stdin, answers on stdout."""
    import urllib.request

    import xllamacpp

    file, requests, context = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.n_parallel, params.port = (
        file,
        context,
        False,
        1,
        0,
    )
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
