"""Running the `axolotl` command in tests: each run a process of its own, without importing Axolotl each time.

Importing Axolotl takes some twenty seconds. A server process imports it once and forks a child for every
command; the child runs Axolotl's own entry point as the console script would.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ENVIRONMENT = {
    # Axolotl starts its launchers by their names.
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    "HF_HUB_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_MMAP_MAX_": "0",  # the buffers of a step are kept: about twice as fast on a CPU
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit status (negative if a signal ended it), and all that it printed."""

    returncode: int
    stdout: str


class Server:
    """Runs commands one at a time."""

    def start(self, package: Path = ROOT) -> Server:
        """Start the server, with the package that is in the directory `package`: this tree's."""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(package)},
            start_new_session=True,
        )
        return self

    def stop(self) -> None:
        """End the server."""
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def begin(self, arguments: list[str], cwd: Path, log: Path, file_limit: int | None = None) -> int:
        """Start `axolotl *arguments` in `cwd`, its output into `log`; returns the process id."""
        request = {"arguments": arguments, "cwd": str(cwd), "log": str(log), "file_limit": file_limit}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["started"]

    def end(self) -> int:
        """Wait for the command that was started last; its exit status."""
        return json.loads(self._process.stdout.readline())["status"]

    def run(self, arguments: list[str], cwd: Path, file_limit: int | None = None) -> Done:
        """Run `axolotl *arguments` to its end."""
        log = Path(cwd) / "axolotl.log"
        self.begin(arguments, cwd, log, file_limit)
        status = self.end()
        return Done(status, log.read_text(encoding="utf-8", errors="replace"))


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is not an answer
    import axolotl.cli.train  # noqa: F401  what `train` itself imports, for the children to have
    from axolotl.cli.main import main

    import eeve_axolotl.trainer  # noqa: F401

    _compile()
    # What is imported is no garbage. The Trainer collects garbage at every checkpoint, and looked through all of it.
    gc.collect()
    gc.freeze()

    def answer(**content) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(main, request)
        with contextlib.suppress(OSError):  # done by the child too: whoever comes first
            os.setpgid(child, child)
        answer(started=child)
        _, status = os.waitpid(child, 0)
        answer(status=os.waitstatus_to_exitcode(status))


def _compile() -> None:
    """Compile what packs samples, Axolotl's and ours, for the children to have."""
    import numpy as np
    from axolotl.utils.samplers.multipack import pack_parallel

    from eeve_axolotl.trainer.text_order import Cut, Text

    lengths = np.ones(3, np.int64)
    pack_parallel(lengths.astype(np.int32), 2, group_size=2, bin_size=2, num_processes=1)
    Text(lengths, 0, "").beginning(Cut(2))


def _run(main, request: dict) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request["cwd"])
    if request["file_limit"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], resource.RLIM_INFINITY))
    os.setpgid(0, 0)  # so that a test can kill the command with all that it started
    from eeve_axolotl.pipeline import launch

    launch.launch = functools.partial(_fork, main)
    _exit_after(main, request["arguments"])


def _fork(main, arguments: list[str], log: Path, on_step) -> int:
    """In place of pipeline.launch.launch: the chain's commands are forked too."""
    from eeve_axolotl import progress
    from eeve_axolotl.pipeline import launch

    steps = launch.steps_file(log)
    child = os.fork()
    if child == 0:
        os.environ[progress.VARIABLE] = str(steps)
        if place := os.environ.get("HF_DATASETS_CACHE"):  # read when `datasets` was imported
            import datasets

            datasets.config.HF_DATASETS_CACHE = Path(place)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _exit_after(main, arguments)

    def ended() -> int | None:
        done, status = os.waitpid(child, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None

    return launch.watch(ended, steps, on_step)


def _exit_after(main, arguments: list[str]) -> None:
    sys.argv = ["axolotl", *arguments]
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
