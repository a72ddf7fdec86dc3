"""Faults inside a command of ours: it is killed, interrupted or refused by the disk at the n-th change that it makes.

A command runs in a child of this process, with what a fault needs: an audit hook sees each file that is opened to be
written, each rename and each removal before it happens. Faults that
raise can be had in this process too (`armed`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
TOO_LONG = 300  # seconds: a command that hangs


@dataclass(frozen=True)
class Fault:
    """What goes wrong: at the change `at` (from 1), after `seconds`, or when a file grows beyond `limit` bytes.

    `error` is the disk's answer, to that change or, if it `lasts`, to all from there on; 0 kills, and -2 is Ctrl-C.
    """

    at: int = 0
    error: int = 0
    lasts: bool = False
    seconds: float = 0
    limit: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a command ended, what it printed, and how many changes it made."""

    status: int
    """The exit status, negative if a signal ended it."""
    printed: str
    changes: int

    @property
    def told(self) -> str | None:
        """The one sentence in which it says what is wrong; None if it says none, or has a traceback."""
        lines = [each for each in self.printed.splitlines() if each.startswith(("Error: ", "Stopped. "))]
        well = self.status in (1, 130) and len(lines) == 1 and "Traceback" not in self.printed
        return lines[0] if well else None


def run(directory: Path, command: Callable[[], object], fault: Fault | None = None) -> Outcome:
    """Run `command` in `directory`, in a child process, with a fault."""
    log, counter = directory.with_suffix(".log"), directory.with_suffix(".changes")
    counter.write_text("")
    child = os.fork()
    if child == 0:
        _child(directory, command, fault, log, counter)
    end = time.monotonic() + (fault.seconds if fault and fault.seconds else TOO_LONG)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return Outcome(
                os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), counter.stat().st_size
            )
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def _child(directory: Path, command: Callable, fault: Fault | None, log: Path, counter: Path) -> None:
    status = 70
    try:
        os.chdir(directory)
        os.setpgid(0, 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (
            open(1, "w", closefd=False),
            open(2, "w", closefd=False),
        )  # not the test's own
        if fault and fault.limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError instead
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, resource.RLIM_INFINITY))
        _arm(str(directory), fault or Fault(), os.open(counter, os.O_WRONLY | os.O_APPEND))
        command()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _arm(directory: str, fault: Fault, counter: int) -> None:
    def count() -> None:
        with contextlib.suppress(OSError):
            os.write(counter, b".")

    _watch(_Armed(directory, fault, count))


@contextlib.contextmanager
def armed(directory: Path, fault: Fault) -> Iterator[_Armed]:
    """The fault in this process, while the block runs: one that raises."""
    now = _Armed(str(directory), fault, lambda: None)
    _watch(now)
    try:
        yield now
    finally:
        _watch(None)


class _Armed:
    def __init__(self, directory: str, fault: Fault, count: Callable[[], None]):
        self.directory, self.fault, self._count, self.changes, self._inside = (
            directory,
            fault,
            count,
            0,
            False,
        )

    def __call__(self, event: str, args: tuple) -> None:
        fault = self.fault
        if self._inside or not _changes(event, args, self.directory):
            return
        self._inside = True  # what happens here is no change of the command's
        self.changes += 1
        self._count()
        self._inside = False
        if not fault.at or self.changes < fault.at or (self.changes > fault.at and not fault.lasts):
            return
        if fault.error == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.error < 0:
            raise KeyboardInterrupt
        if fault.lasts and event in ("os.remove", "os.rmdir", "os.rename"):
            return  # a full disk lets things be removed
        raise OSError(fault.error, os.strerror(fault.error), str(args[0]))


_watching: list[_Armed] = []  # one at most; the hook that looks here stays for ever


def _watch(armed: _Armed | None) -> None:
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(lambda event, args: _watching[0](event, args) if _watching else None)
    _watching[:] = [armed] if armed else []


_hooked: list[bool] = []


def _changes(event: str, args: tuple, directory: str) -> bool:
    """Whether an audited event changes something in the directory."""
    if event == "open":
        path, mode, flags = args
        writes = set(mode or "") & set("wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not writes:
            return False
    elif event not in CHANGES:
        return False
    if not isinstance(args[0], (str, bytes, os.PathLike)):
        return False
    path = os.fsdecode(args[0])
    return not os.path.isabs(path) or path.startswith(directory)
