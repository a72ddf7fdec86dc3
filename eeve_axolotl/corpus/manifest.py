"""What a corpus says of itself, and whether the tokenizer that it was made for is the one that trains on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import CORPUS_FILE, CORPUS_MANIFEST, FAST_TOKENIZER, read

Manifest = dict[str, Any]  # as JSON has it

HELD_OUT = "held_out"  # the directory of held-out text in a corpus
TRAIN = "train"  # that of the shards to train on


def tokenizer_identity(directory: str | Path) -> str:
    """A hash of how the tokenizer in `directory` makes tokens of text: vocabulary, merges, normalisation.

    What does not change the tokens of a document (padding, truncation, bos and eos, chat template) does
    not count. Raises EEVEError if there is no tokenizer.
    """
    file = Path(directory) / "tokenizer.json"
    if file.is_file():
        return _of_file(file, hashlib.sha256(file.read_bytes()).hexdigest())
    from transformers import AutoTokenizer

    try:
        state = json.loads(AutoTokenizer.from_pretrained(str(directory)).backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise EEVEError(
            f"{directory} holds no tokenizer ({' '.join(str(error).split())[:200]}); build one with "
            "`axolotl eeve tokenizer`"
        ) from None
    return _of_state(state)


@lru_cache(maxsize=8)
def _of_file(file: Path, content: str) -> str:
    """The identity of the tokenizer in `file`, worked out once for a `content`, which is a hash."""
    return _of_state(read(file, FAST_TOKENIZER) or {})


def _of_state(state: Mapping[str, Any]) -> str:
    parts = {key: state.get(key) for key in ("model", "normalizer", "pre_tokenizer")}
    # transformers adds keys of no effect when it writes a tokenizer again.
    model: Mapping[str, Any] = state.get("model") or {}
    parts["model"] = {key: model.get(key) for key in ("type", "vocab", "merges", "byte_fallback")}
    added = sorted((token["id"], token["content"]) for token in state.get("added_tokens") or [])
    text = json.dumps([parts, added], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(directory: str | Path) -> Manifest | None:
    """The manifest of the corpus in `directory`, None if that is no corpus of ours.

    Raises EEVEError for a manifest that cannot be read.
    """
    manifest: Manifest | None = read(Path(directory) / CORPUS_MANIFEST, CORPUS_FILE)
    return manifest


def held_out_file(corpus: str | Path, group: str) -> Path:
    """Where the corpus in `corpus` keeps the held-out text of one group of its mix."""
    return Path(corpus, HELD_OUT, f"{group}.parquet")


def check_tokenizer(corpus: str | Path, tokenizer: str | Path) -> None:
    """Raise EEVEError if the corpus in `corpus` was counted and chosen with another tokenizer than `tokenizer`."""
    manifest = read_manifest(corpus)
    made_with = (manifest or {}).get("tokenizer") or {}
    if manifest is not None and made_with.get("identity") != tokenizer_identity(tokenizer):
        raise EEVEError(
            f"the corpus {corpus} was made with the tokenizer {made_with.get('directory')}, which is not the "
            f"one in {tokenizer}; set tokenizer_config to that tokenizer, or make the corpus again with this one"
        )


def check_recipe(cfg: Mapping[str, Any]) -> None:
    """Check every corpus of ours that an Axolotl config trains or evaluates on: its tokenizer and its length.

    Raises EEVEError with what to change.
    """
    tokenizer = cfg.get("tokenizer_config") or cfg.get("base_model")
    for key in ("datasets", "pretraining_dataset", "test_datasets"):
        for paths in paths_read(cfg, key):
            for corpus in _corpora(paths):
                if tokenizer and Path(tokenizer).is_dir():
                    check_tokenizer(corpus, tokenizer)
                manifest = read_manifest(corpus)
                assert manifest is not None  # `_corpora` has seen it
                check_length(cfg, manifest["longest_record"], corpus, key)


def corpus_tokens(cfg: Mapping[str, Any]) -> int | None:
    """Tokens of the corpora of ours that an Axolotl config trains on; None where a dataset of it is none of ours."""
    found = [_corpora(paths) for paths in paths_read(cfg, "datasets")]
    if not found or not all(found):
        return None
    manifests = [read_manifest(corpus) or {} for corpus in {corpus for each in found for corpus in each}]
    if not all(each.get("groups") is not None for each in manifests):
        return None
    return sum(group["tokens"] for each in manifests for group in each["groups"].values())


def paths_read(cfg: Mapping[str, Any], key: str) -> Iterator[list[str]]:
    """Of each dataset that an Axolotl config has under `key`, what it reads: the path, and the names of its files."""
    entries = cfg.get(key) or []
    for entry in [entries] if isinstance(entries, (Mapping, str)) else entries:
        if isinstance(entry, str):
            yield [entry]
        else:
            files = entry.get("data_files") or []
            named = [entry.get("path"), *([files] if isinstance(files, str) else files)]
            yield [str(each) for each in named if each]


def _corpora(paths: list[str]) -> list[Path]:
    """The directories with a manifest at or above the paths of a dataset."""
    found: list[Path] = []
    for path in paths:
        for directory in (Path(path), *list(Path(path).parents)[:2]):
            if (directory / CORPUS_MANIFEST).is_file() and directory not in found:
                found.append(directory)
    return found


def check_length(cfg: Mapping[str, Any], longest_record: int, corpus: Path, key: str) -> None:
    """Raise EEVEError if an Axolotl config reads, under `key`, less of a record than the corpus's longest has tokens."""
    length = cfg.get("sequence_len")
    factor = 1 if key == "pretraining_dataset" else 64
    if length and factor * length - 2 < longest_record:
        raise EEVEError(
            f"the corpus {corpus} has documents of up to {longest_record:,} tokens, of which Axolotl would "
            f"drop what goes beyond {factor * length:,} (`{key}` with sequence_len: {length}); make it again with "
            f"`write: {{sequence_len: {length}, read_as: {'streaming' if factor == 1 else 'completion'}}}`"
        )
