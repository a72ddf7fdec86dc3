"""Whole or not there: every file and directory of ours is written beside its place and then moved into it.

Also the two ways to read a JSON file, and hashes. What the files of a stage, a chain, a tokenizer or a corpus are called
stands in `records.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eeve_axolotl.errors import EEVEError


def beside(path: Path) -> Path:
    """Where a file or directory is written before it has its name: never taken for a finished one."""
    return path.with_name(f".{path.name}.unfinished")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` when the block ends without an error.

    `path` is the old file or the whole new one at any moment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = beside(path)
    yield unfinished
    unfinished.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8."""
    with writing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file of ours.

    Raises EEVEError naming the file if it is missing, cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise EEVEError(f"{path} cannot be read ({why}); have it written again") from None


def read_json_if_there(path: Path) -> Any:
    """The same, None where there is no file."""
    return read_json(path) if path.is_file() else None


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A fresh directory to fill, which takes the place of `directory` when the block ends without an error.

    What was in `directory` is removed only after its successor is in place.
    """
    unfinished, old = beside(directory), directory.with_name(f".{directory.name}.old")
    for leftover in (unfinished, old):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    if directory.exists():
        directory.rename(old)
    unfinished.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()
