"""Stands between a chain and one command of it, so that no process of the command outlives the chain.

Started as a script (it imports nothing of the package: `python keeper.py COMMAND...`), it runs COMMAND and ends with its
exit status. Its standard input is a pipe that only the chain holds open: when the chain dies, however it dies, the pipe
ends, and all processes of the command are killed. Launchers put processes into sessions of their own, out of reach of a
signal to the group; they are known by what the chain has put into their environment.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PAUSE = 0.05  # seconds between two looks at the command
VARIABLE = "EEVE_PROGRESS"  # `progress.VARIABLE`, by which the command's processes are known


def main(command: list[str]) -> None:
    """Run `command`, and end as it did, or with the chain."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while process.poll() is None:
        if select.select([0], [], [], PAUSE)[0] and not os.read(0, 1):
            kill_all(os.environ[VARIABLE])
            os.killpg(0, signal.SIGKILL)  # this process too
    status = process.returncode
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def processes_of(mark: str) -> list[int]:
    """The living processes, but this one, whose environment has `mark` in `VARIABLE` (its beginning, if it ends in /).

    Empty where the system does not tell (other than Linux), and for processes of other users.
    """
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (place / "environ").read_bytes().split(b"\0")
            ours = any(
                each == wanted or (mark.endswith("/") and each.startswith(wanted)) for each in variables
            )
            if ours and int(place.name) != os.getpid():
                state = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                found += [int(place.name)] if state not in "ZX" else []
    return sorted(found)


def kill_all(mark: str, seconds: float = 10) -> None:
    """Kill the processes of `mark`, those too that they start meanwhile, and wait until they are gone."""
    end = time.monotonic() + seconds
    while (found := processes_of(mark)) and time.monotonic() < end:
        for process in found:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1:])
