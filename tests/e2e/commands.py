"""Running the `axolotl` command in tests: each run a process of its own, without importing Axolotl each time.

Importing Axolotl takes some twenty seconds. A server process imports it once and forks a child for every
command; the child runs Axolotl's own entry point as the console script would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_MMAP_MAX_": "0",  # the buffers of a step are kept: about twice as fast on a CPU
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}


class Server:
    """Runs commands one at a time; use as a context manager."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def start(self, arguments: list[str], cwd: Path, log: Path, env: dict[str, str] | None = None) -> int:
        """Start `axolotl *arguments` in `cwd`, its output into `log`; returns the process id."""
        request = {"arguments": arguments, "cwd": str(cwd), "log": str(log), "env": env or {}}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["started"]

    def wait(self) -> int:
        """The exit status of the command that was started last; negative if a signal ended it."""
        return json.loads(self._process.stdout.readline())["status"]

    def run(self, arguments: list[str], cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
        """Run `axolotl *arguments` to its end; its exit status and all that it printed."""
        log = Path(cwd) / "axolotl.log"
        self.start(arguments, cwd, log, env)
        status = self.wait()
        return status, log.read_text(encoding="utf-8", errors="replace")


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is not an answer
    from axolotl.cli.main import main

    import axolotl.cli.train  # noqa: F401  what `train` itself imports, for the children to have
    import eeve_axolotl.trainer  # noqa: F401

    def answer(**content) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(main, request)
        answer(started=child)
        _, status = os.waitpid(child, 0)
        answer(status=os.waitstatus_to_exitcode(status))


def _run(main, request: dict) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["axolotl", *request["arguments"]]
    status = 1
    try:
        main()
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
