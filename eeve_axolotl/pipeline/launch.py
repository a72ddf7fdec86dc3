"""Starting one command of the chain, its output into a log, its training steps shown."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

LOSS = re.compile(r"'loss': '?([0-9.]+)")
STEP = re.compile(r"'eeve/step': '?([0-9]+)")
OnStep = Callable[[float, "int | None"], None]
"""Called with each loss that is logged, and its step in the whole run if the line says so."""
Launch = Callable[[list[str], Path, OnStep], int]
"""Runs `axolotl ARGUMENTS` (its output into the file, a call for each loss), and returns the exit status."""


def launch(arguments: list[str], log: Path, on_step: OnStep) -> int:
    """Run `axolotl ARGUMENTS` in a process of its own, which does not outlive this one."""
    command = [str(Path(sys.executable).with_name("axolotl")), *arguments]
    if arguments[0] == "eeve":  # our own commands do not need Axolotl's imports
        command = [sys.executable, "-m", "eeve_axolotl.cli", *arguments[1:]]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    reader = threading.Thread(target=_copy, args=(process.stdout, log, on_step), daemon=True)
    reader.start()
    try:
        return process.wait()
    finally:  # also on Ctrl-C: leave no training behind, nor workers that outlived it (they hold the pipe open)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()


def _copy(lines: Iterable[str], log: Path, on_step: OnStep) -> None:
    """Copy output into the log as it comes, and tell of each loss in it."""
    with log.open("w", encoding="utf-8", errors="replace") as out:
        for line in lines:
            out.write(line)
            out.flush()
            if loss := LOSS.search(line):
                step = STEP.search(line)
                on_step(float(loss[1]), int(step[1]) if step else None)


def _die_with_parent() -> None:
    """Killed with the chain, so that a second chain does not write beside an orphan of the first."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        os._exit(1)
