"""Files that are whole or not there: written beside, then moved into place; and their hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON; `path` is the old file or the whole new one at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.unfinished")
    beside.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A fresh directory to fill, which takes the place of `directory` when the block ends without an error.

    What was in `directory` is removed only after its successor is in place.
    """
    beside, old = (directory.with_name(f".{directory.name}.{what}") for what in ("unfinished", "old"))
    for leftover in (beside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    beside.mkdir(parents=True)
    yield beside
    if directory.exists():
        directory.rename(old)
    beside.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
