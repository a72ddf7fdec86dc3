"""How a command of ours ends, and what it leaves on stdout: what a person can put right is told in one line."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator

import click

from eeve_axolotl.errors import EEVEError


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """While the block runs, what libraries print goes to stderr: stdout is for what the command was asked for."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def told_plainly(command: Callable) -> Callable:
    """Print what a person can put right as one line on stderr, without a traceback: exit status 1, after Ctrl-C 130."""

    @functools.wraps(command)
    def wrapper(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except EEVEError as error:
            _end(f"Error: {error}", 1)
        except KeyboardInterrupt:
            _end("Stopped. What was finished stays: run the same command again to go on from there", 130)
        except Exception as error:
            number = _refusal(error)
            if number not in REFUSED:
                raise
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            _end(
                f"Error: {where}{os.strerror(number)}; make it possible to read and write there, or give another place",
                1,
            )

    return wrapper


# What a disk says to a person who asks for too much of it.
REFUSED = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR, errno.EISDIR,
    errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY, errno.EIO, errno.ESTALE, errno.ENOLCK,
    errno.EMFILE, errno.ENFILE,
}  # fmt: skip


def _refusal(error: Exception) -> int:
    """The number of what the system refused, 0 where it is none; libraries written in Rust only say it in words."""
    if isinstance(error, OSError):
        return error.errno or 0
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else 0


def _end(sentence: str, status: int) -> None:
    click.secho(sentence, fg="red", err=True)
    sys.exit(status)
