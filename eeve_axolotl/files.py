"""Whole or not there: every file and directory of ours is written beside its place and then moved into it.

Also the two ways to read a JSON file, and hashes. What the files of a stage, a chain, a tokenizer or a corpus are called
stands in `records.py`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eeve_axolotl.errors import EEVEError


def beside(path: Path) -> Path:
    """Where a file or directory is written before it has its name: never taken for a finished one."""
    return path.with_name(f".{path.name}.unfinished")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` when the block ends without an error.

    `path` is the old file or the whole new one at any moment. Where `path` is a link, what it leads to is replaced.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = beside(path)
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8."""
    with writing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path, remedy: str = "have it written again") -> Any:
    """The content of a JSON file of ours.

    Raises EEVEError naming the file, and the `remedy`, if it is missing, cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise EEVEError(f"{path} cannot be read ({why}); {remedy}") from None


def read_json_if_there(path: Path, remedy: str = "have it written again") -> Any:
    """The same, None where there is no file."""
    return read_json(path, remedy) if path.is_file() else None


@contextmanager
def replacing(directory: Path, ours: Callable[[Path], bool] = lambda path: True) -> Iterator[Path]:
    """A fresh directory to fill, which takes the place of `directory` when the block ends without an error.

    What was in `directory` is removed only after its successor is in place; files that are not `ours` move into it.
    Where `directory` is a link, what it leads to is replaced. A mount point, or a place in a directory that cannot be
    written, stays and gets a new content.
    """
    directory = directory.resolve()
    inside = _must_stay(directory)
    unfinished, old = (
        (directory / _UNFINISHED, directory / _OLD)
        if inside
        else (beside(directory), directory.with_name(f".{directory.name}.old"))
    )
    if old.is_dir() and not directory.exists():  # killed between two renames
        old.rename(directory)
    _keep_others(old, directory, ours)  # killed after them
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    if inside:
        _refill(directory, unfinished, old)
    else:
        if directory.exists():
            directory.rename(old)
        unfinished.rename(directory)
    _keep_others(old, directory, ours)


def _keep_others(old: Path, new: Path, ours: Callable[[Path], bool]) -> None:
    """Remove the directory `old`, after files that are not `ours` have moved from it to `new`."""
    if not old.is_dir():
        return
    for path in list(old.iterdir()):
        if not ours(path):
            path.rename(_free(new / path.name))
    shutil.rmtree(old)


def _free(path: Path) -> Path:
    """`path`, or the first of `path.1`, `path.2`, ... that is not there."""
    names = itertools.chain([path], (path.with_name(f"{path.name}.{n}") for n in itertools.count(1)))
    return next(each for each in names if not os.path.lexists(each))


_UNFINISHED, _OLD = ".eeve.unfinished", ".eeve.old"  # in a directory that must stay where it is
LEFT_BY_A_KILL = (_UNFINISHED, _OLD)


def _refill(directory: Path, new: Path, old: Path) -> None:
    """Put the content of `new` in the place of that of `directory`; manifests and records go first and come last."""
    old.mkdir()
    there = [path for path in directory.iterdir() if path not in (new, old) and path.name != "lost+found"]
    for path in sorted(there, key=lambda path: not path.name.startswith("eeve_")):
        path.rename(old / path.name)
    for path in sorted(new.iterdir(), key=lambda path: path.name.startswith("eeve_")):
        path.rename(directory / path.name)
    new.rmdir()


def _must_stay(directory: Path) -> bool:
    """Whether `directory` is there and cannot be renamed: a mount point, or in a place that cannot be written."""
    if not directory.is_dir():
        return False
    return _is_mount(directory) or not os.access(directory.parent, os.W_OK)


def _is_mount(directory: Path) -> bool:
    """`os.path.ismount` does not know a directory that is mounted from the same disk; Linux lists it."""
    if os.path.ismount(directory):
        return True
    mounts = Path("/proc/self/mountinfo")
    if not mounts.is_file():
        return False
    places = (line.split()[4] for line in mounts.read_text(errors="surrogateescape").splitlines())
    return str(directory) in {
        each.encode().decode("unicode_escape") if "\\" in each else each for each in places
    }


def check_writable(path: Path, what: str) -> None:
    """Raise EEVEError, before any work, if no directory can be written at `path`. Leaves nothing behind.

    Args:
        what: the key that names the path.
    """
    if str(path).strip() in ("", "."):
        raise EEVEError(f"{what}: give a directory of its own, not {str(path)!r}")
    try:
        place = path.resolve()
        while not place.exists():
            if place.is_symlink():  # still, though resolved: links to each other, which Python 3.13 lets pass
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            place = place.parent
        probe = place / f".eeve.{os.getpid()}.probe"
        probe.mkdir()
        probe.rmdir()
    except (OSError, RuntimeError) as error:  # RuntimeError: Python 3.12 of such links
        why = getattr(error, "strerror", None) or error
        raise EEVEError(f"{what}: {path} cannot be written ({why}); choose another place") from None


def remove_ours(directory: Path, ours: Callable[[Path], bool]) -> None:
    """Remove what is `ours` from `directory`, and itself if nothing else is left and it is no link or mount point."""
    if not directory.is_dir():
        return
    for path in list(directory.iterdir()):
        if not ours(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not any(directory.iterdir()) and not directory.is_symlink() and not _is_mount(directory.resolve()):
        directory.rmdir()


@contextmanager
def alone(path: Path, busy: str) -> Iterator[int]:
    """Hold the lock file `path` while the block runs; gives its descriptor. Raises EEVEError saying `busy` if another does.

    The lock is the open file's: a child that inherits the descriptor holds it too, until it ends.
    """
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EEVEError(busy) from None
        yield lock.fileno()


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()
