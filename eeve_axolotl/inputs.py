"""What an input is, by its content: texts, configs and tokenizers that a result was made from.

Two identities of one input are equal as long as nothing in it has changed. They are JSON, so that records can hold them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WHOLE = 32 << 20  # bytes: files up to this size are read to the end
BLOCKS, BLOCK = 32, 1 << 18  # of larger ones so many blocks, evenly spaced, of so many bytes
MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
)  # beside weights: what else decides a model

Identity = dict[str, str]
"""Of each file its size and a hash, by the file's name."""


def of_file(path: Path) -> str:
    """Size and SHA-256 of a file; of a large one, the hash of blocks, and the time when it was last written."""
    at = path.stat()
    return _of_file(path.absolute(), at.st_size, at.st_mtime_ns, at.st_ctime_ns)


def of_path(path: str | Path) -> Identity:
    """A file, or the files of a directory that are not hidden; empty if there is nothing at `path`."""
    path = Path(path)
    if path.is_file():
        return {str(path): of_file(path)}
    found = {}
    for folder, inside, names in os.walk(path):
        inside[:] = sorted(each for each in inside if not each.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                found[str(file)] = of_file(file)
    return found


def of_model(directory: str | Path) -> Identity:
    """The files beside a model's weights that decide what it computes."""
    files = (Path(directory) / name for name in MODEL_FILES)
    return {str(file): of_file(file) for file in files if file.is_file()}


def of_datasets(entries: Any) -> Identity:
    """Axolotl's `datasets`, `test_datasets` or `pretraining_dataset`: local files, and the hub's by their revision."""
    found: Identity = {}
    for entry in [entries] if isinstance(entries, (Mapping, str)) else entries or []:
        found.update(_of_dataset(entry if isinstance(entry, Mapping) else {"path": entry}))
    return found


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of inputs that are not what they were, in order."""
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def digest(*identities: Any) -> str:
    """One short name for several identities."""
    return hashlib.sha256(json.dumps(identities, sort_keys=True).encode()).hexdigest()[:16]


def _of_dataset(entry: Mapping[str, Any]) -> Identity:
    path, files = str(entry.get("path") or ""), entry.get("data_files") or []
    named = [str(each) for each in _flat(files)]
    local = [place for name in named for place in (Path(name), Path(path, name)) if place.is_file()]
    if local:
        return {str(file): of_file(file) for file in local}
    if Path(path).exists():
        return of_path(path)
    revision = entry.get("revision") or _cached_revision(path)
    return {path: f"revision {revision}"} if path and revision else {}


def _flat(files: Any) -> Iterable[Any]:
    """`data_files` may be a name, a list of them, or either by split."""
    if isinstance(files, Mapping):
        return [each for of_split in files.values() for each in _flat(of_split)]
    return files if isinstance(files, list) else [files]


def _cached_revision(name: str) -> str | None:
    """The commit that the hub's cache has as a dataset's newest, None if it has none."""
    if name.count("/") != 1 or "://" in name:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    newest = Path(HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}", "refs", "main")
    return newest.read_text(encoding="utf-8").strip() if newest.is_file() else None


@functools.lru_cache(maxsize=100_000)
def _of_file(path: Path, size: int, written: int, changed: int) -> str:
    """`written`, in ns since 1970, counts where not every byte is read. `changed` cannot be set: it keeps the cache true."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        if size <= WHOLE:
            while piece := file.read(1 << 20):
                hashed.update(piece)
            return f"{size} {hashed.hexdigest()}"
        for number in range(BLOCKS):
            file.seek((size - BLOCK) * number // (BLOCKS - 1))
            hashed.update(file.read(BLOCK))
    return f"{size} {hashed.hexdigest()} {written}"
