"""What a stage leaves beside its weights, and how to tell that it is done."""

from __future__ import annotations

import functools
from pathlib import Path

from eeve_axolotl.files import read_json, sha256

RECORD = "eeve_stage.json"  # written last: its presence says "done"
HISTORY = "eeve_history.json"  # loss by step, and what the stage cost
FAILED = "eeve_stage.failed.json"  # the evidence, where something frozen has changed


def read_record(directory: str | Path) -> dict | None:
    """The record of a stage that is done, or None: no record, or weights that are not those it names."""
    record = read_json(Path(directory) / RECORD)
    return record if record and record.get("weights") == weights_sha256(directory) else None


def weights_sha256(directory: str | Path) -> dict[str, str]:
    """SHA-256 of every weights file in `directory`, by name; a file is read again only if it has changed."""
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        at = path.stat()
        found[path.name] = _sha256(path, at.st_size, at.st_mtime_ns)
    return found


@functools.lru_cache(maxsize=1000)
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256(path)
