"""What an input is, by its content: texts, configs and tokenizers that a result was made from.

Two identities of one input are equal as long as nothing in it has changed. They are JSON, so that records can hold them.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl.paths import files_below, matching

WHOLE = 32 << 20  # bytes: files up to this size are read to the end
BLOCKS, BLOCK = 32, 1 << 18  # of larger ones so many blocks, evenly spaced, of so many bytes
# Beside weights: what else decides a model.
MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer.model")
TOKENIZER_FILES = (  # of which transformers makes a tokenizer
    *MODEL_FILES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
_NOT_TEXT = "cache-"  # what `datasets` keeps beside a saved dataset that it has mapped
REVISION = "revision "  # before what the hub calls a version

Identity = dict[str, str]
"""Of each file its size and a hash, by the file's name."""


def of_file(path: Path) -> str:
    """Size and SHA-256 of a file; of a large one, the hash of blocks, and the time when it was last written."""
    at = path.stat()
    return _of_file(path.absolute(), at.st_size, at.st_mtime_ns, at.st_ctime_ns)


def of_path(path: str | Path) -> Identity:
    """A file, or the files of a directory that are not hidden; of a pattern with `*` those that it matches.

    Empty if there is nothing at `path`.
    """
    if not str(path).strip():  # to Path the working directory
        return {}
    path = Path(path)
    if path.is_file():
        return {str(path): of_file(path)}
    if not path.is_dir() and glob.has_magic(str(path)):
        return {name: each for place in matching(str(path)) for name, each in of_path(place).items()}
    files = (file for file in files_below(path) if not file.name.startswith(_NOT_TEXT))
    return {str(file): of_file(file) for file in files}


def of_model(model: str | Path, revision: str | None = None, files: Iterable[str] = MODEL_FILES) -> Identity:
    """The files beside a model's weights that decide what it computes; of a model on the hub its revision."""
    if Path(model).is_dir():
        there = (Path(model) / name for name in files)
        return {str(file): of_file(file) for file in there if file.is_file()}
    return _of_the_hub("models", str(model), revision)


def of_tokenizer(name: str) -> Identity:
    """What a tokenizer is made of: the files in its directory, a file, or a revision on the hub."""
    return of_path(name) if Path(name).is_file() else of_model(name, files=TOKENIZER_FILES)


def of_text(path: str, revision: str | None = None) -> Identity:
    """A text: a file, a directory, a pattern with `*`, or a dataset on the hub."""
    return of_path(path) or _of_the_hub("datasets", path, revision)


def of_datasets(entries: Any) -> Identity:
    """Axolotl's `datasets`, `test_datasets` or `pretraining_dataset`: local files, and the hub's by their revision."""
    found: Identity = {}
    for entry in [entries] if isinstance(entries, (Mapping, str)) else entries or []:
        found.update(_of_dataset(entry if isinstance(entry, Mapping) else {"path": entry}))
    return found


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of inputs that are not what they were, in order."""
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def changes(before: Identity, now: Identity) -> list[str]:
    """What has changed between two identities, a sentence each. A revision that was not known before is no change."""
    words = {(True, True): "has another content", (True, False): "is gone", (False, True): "is new"}
    before = known_since(before, now)
    return [f"{name} {words[name in before, name in now]}" for name in changed(before, now)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings whose values differ, with both values, a sentence each."""
    return [
        f"{key} was {_short(old.get(key))} and is {_short(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."


def known_since(before: Identity, now: Mapping[str, str]) -> Identity:
    """`before`, with the revisions on the hub that were not known before something was fetched from there."""
    fetched = {name: each for name, each in now.items() if each.startswith(REVISION)}
    return {**fetched, **before}


def digest(*identities: Any) -> str:
    """One short name for several identities."""
    return hashlib.sha256(json.dumps(identities, sort_keys=True).encode()).hexdigest()[:16]


def _of_dataset(entry: Mapping[str, Any]) -> Identity:
    path, revision = str(entry.get("path") or ""), entry.get("revision")
    named = [str(each) for each in _flat(entry.get("data_files") or []) if each]
    if path and entry.get("data_dir"):
        path = str(Path(path, str(entry["data_dir"]))) if Path(path).exists() else path
    local: Identity = {}
    # Of a directory they are below it; of a kind of file (`path: json`) they are as they are.
    for name in named:
        local.update(of_path(Path(path, name)) or of_path(name))
    return local if local and Path(path).exists() else {**local, **of_text(path, revision)}


def _flat(files: Any) -> Iterable[Any]:
    """`data_files` may be a name, a list of them, or either by split."""
    if isinstance(files, Mapping):
        return [each for of_split in files.values() for each in _flat(of_split)]
    return files if isinstance(files, list) else [files]


def _of_the_hub(kind: str, name: str, revision: str | None) -> Identity:
    """The commit that the hub's cache has for `revision` of a dataset or model (a branch moves); else `revision`."""
    if not name or "://" in name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        return {}
    from huggingface_hub.constants import HF_HUB_CACHE

    refs = Path(HF_HUB_CACHE, f"{kind}--{name.replace('/', '--')}", "refs")
    newest = refs / (revision or "main")
    commit = newest.read_text(encoding="utf-8").strip() if newest.is_file() else revision
    return {f"{name}@{revision}" if revision else name: f"{REVISION}{commit}"} if commit else {}


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
