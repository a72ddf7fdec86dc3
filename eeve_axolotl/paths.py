"""The files that a path or a pattern names, each once, wherever links lead."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_ANY_DEPTH = "**"


def same_place(one: str | Path, other: str | Path) -> bool:
    """Whether both paths lead to one place."""
    return Path(one).resolve() == Path(other).resolve()


def files_below(root: str | Path) -> Iterator[Path]:
    """The files in a directory and those below it that are not hidden."""
    for directory, names in _directories(str(root)):
        yield from (Path(directory, name) for name in names if Path(directory, name).is_file())


def matching(pattern: str) -> list[str]:
    """What a pattern matches, sorted: as `glob.glob` with `**` for any depth, but a directory that two ways lead to once."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted(_matching(pattern), key=lambda path: (path.count(os.sep), path)):
        directory, name = os.path.split(path.rstrip(os.sep))
        found.setdefault((os.path.realpath(directory), name), path)
    return sorted(found.values())


def _matching(pattern: str) -> Iterator[str]:
    parts = pattern.split(os.sep)
    if _ANY_DEPTH not in parts:
        yield from glob.glob(pattern)
        return
    first = parts.index(_ANY_DEPTH)
    head, rest = os.sep.join(parts[:first]), os.sep.join(parts[first + 1 :])
    if not head:
        roots = [os.sep if pattern.startswith(os.sep) else ""]
    else:
        roots = [root for root in glob.glob(head) if os.path.isdir(root)]
    for root in roots:
        for directory, names in _directories(root):
            if rest:
                yield from _matching(os.path.join(glob.escape(directory), rest))
            else:
                yield from (os.path.join(directory, name) for name in names)


def _directories(root: str) -> Iterator[tuple[str, list[str]]]:
    """The directory `root` ("" is the working one) and those below it, with the names of the files in each.

    Hidden ones are left out. Links to directories are followed, but for those that lead to a place that was there before,
    or that `root` itself is in; and after all that is there without links, so that it goes by its own name.
    """
    if not os.path.isdir(root or os.curdir):
        return
    seen = {_identity(str(parent)) for parent in Path(root).resolve().parents}
    places, links = deque([root]), deque[str]()
    while places or links:
        place = places.popleft() if places else links.popleft()
        try:
            inside = sorted(name for name in os.listdir(place or os.curdir) if not name.startswith("."))
            identity = _identity(place or os.curdir)
        except OSError:  # a directory that may not be read
            continue
        if identity in seen:
            continue
        seen.add(identity)
        names = []
        for name in inside:
            path = os.path.join(place, name)
            if not os.path.isdir(path):
                names.append(name)
            else:
                (links if os.path.islink(path) else places).append(path)
        yield place, names


def _identity(directory: str) -> tuple[int, int]:
    at = os.stat(directory)
    return at.st_dev, at.st_ino
