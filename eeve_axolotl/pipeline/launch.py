"""Starting one command of the chain: its output goes into a log, and how far it is is told as it goes on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eeve_axolotl import progress
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline import keeper

OnTold = Callable[[progress.Told], None]
"""Called with what a command tells: each training step whose loss is logged, and how far a long step is."""
Launch = Callable[[list[str], Path, OnTold], int]
"""Runs `axolotl ARGUMENTS` (its output into the file, a call for what it tells), and returns the exit status."""

PAUSE = 0.05  # seconds between two looks at a running command
WAIT = 5.0  # seconds for what a chain that was just killed had started

# How Python prints the error that ended a process, under torchrun with its rank before it.
RAISED = re.compile(r"^(\[rank\d+\]: ?)?[\w.]*(Error|Exception|Interrupt)\b(: .*)?$")
# What the launchers add: only that a process of theirs failed.
LAUNCHERS = ("ChildFailedError", "CalledProcessError")


def launch(arguments: list[str], log: Path, on_told: OnTold) -> int:
    """Run `axolotl ARGUMENTS` in a process of its own, which does not outlive this one.

    Returns its exit status, negative if a signal ended it.
    """
    command = [str(Path(sys.executable).with_name("axolotl")), *arguments]
    if arguments[0] == "eeve":  # our own commands do not need Axolotl's imports
        command = [sys.executable, "-m", "eeve_axolotl.cli", *arguments[1:]]
    steps = steps_file(log)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, keeper.__file__, *command],
            stdin=subprocess.PIPE,  # never written to: it ends with this process
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, progress.VARIABLE: str(steps)},
            start_new_session=True,
        )
    try:
        return watch(process.poll, steps, on_told)
    finally:  # also on Ctrl-C: leave no training behind, nor workers that outlived it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        keeper.kill_all(str(steps))
        assert process.stdin is not None
        process.stdin.close()


def check_no_orphans(logs: Path) -> None:
    """Raise EEVEError if commands of an earlier chain, whose logs are in `logs`, are still at work after a moment."""
    end = time.monotonic() + WAIT
    while found := keeper.processes_of(f"{logs.absolute()}/"):
        if time.monotonic() > end:
            numbers = " ".join(str(each) for each in found)
            raise EEVEError(
                f"processes of an earlier `axolotl eeve run` in {logs.parent} are still at work; wait for their end, or "
                f"end them: kill -9 {numbers}"
            )
        time.sleep(PAUSE)


def steps_file(log: Path) -> Path:
    """The file beside `log` in which the command tells how far it is (see `progress`): none is there yet."""
    path = log.absolute().with_suffix(".steps.jsonl")
    path.unlink(missing_ok=True)  # of the same command before: it was killed, and goes on now
    return path


def watch(ended: Callable[[], int | None], steps: Path, on_told: OnTold) -> int:
    """Pass on what comes in the file `steps`, until `ended` gives an exit status; returns that."""
    reader = progress.Reader(steps)
    while True:
        status = ended()  # before reading: after its end a command writes no more
        for told in reader.new():
            on_told(told)
        if status is not None:
            return status
        time.sleep(PAUSE)


def why(log: Path) -> str:
    """The failed command's own words in its log: our errors are one sentence, others end in theirs."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(("eeve_axolotl: ", "Error: "))]
    raised = [line for line in lines if RAISED.match(line) and not any(name in line for name in LAUNCHERS)]
    return (ours or raised or lines or ["it printed nothing"])[-1]
