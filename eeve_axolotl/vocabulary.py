"""Which tokens are new: what the tokenizer, the model's rows and the settings say, and whether they agree.

A tokenizer's ids need not be without holes (GPT-4o's has 200,000 tokens and ids up to 200,018). So a vocabulary's size is
here always the number of ids that it spans, one more than the highest, and new tokens begin after the highest of the base.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.records import TOKENIZER_FILE, TOKENIZER_MANIFEST, read

LOG = logger("vocabulary")

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "tekken.json",
    "spiece.model",
    "vocab.txt",
)


def id_count(tokenizer) -> int:
    """The ids that a tokenizer spans, one more than its highest: the rows that its model must have.

    Args:
        tokenizer: anything with `get_vocab()` that names all tokens, added and special ones too.
    """
    return max(tokenizer.get_vocab().values(), default=-1) + 1


@dataclass(frozen=True)
class Vocabulary:
    """Ids below `base_size` are the base tokenizer's; those from there on and below `size` are new.

    Rows from `uninitialised_from` on are not in the checkpoint yet; equal to `size` if all are.
    """

    base_size: int
    size: int
    uninitialised_from: int

    @property
    def new_tokens(self) -> int:
        """Number of new ids."""
        return self.size - self.base_size

    def mark(self) -> dict[str, int]:
        """What to write in the model's config, so that the next stage knows its rows."""
        return {"base_vocab_size": self.base_size, "vocab_size": self.size}


def tokenizer_beside(base: str, revision: str = "main") -> Any:
    """The base model's own tokenizer, to hold an extended one against; None where there is none to compare."""
    # Where there are no files, transformers makes a tokenizer of nothing for some architectures (Phi's).
    if os.path.isdir(base) and not any(os.path.isfile(os.path.join(base, name)) for name in _TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base, revision=revision)
    except (OSError, ValueError) as error:
        LOG.info("no tokenizer beside %s to compare with (%s)", base, type(error).__name__)
        return None


def manifest_base_size(tokenizer: str | Path) -> int | None:
    """The base vocabulary's size from the manifest beside a tokenizer, None without a manifest.

    Args:
        tokenizer: a directory, or a name on the hub.

    Raises EEVEError for a manifest that cannot be read.
    """
    path: Path | None = Path(tokenizer) / TOKENIZER_MANIFEST
    if not Path(tokenizer).is_dir():
        path = _on_the_hub(str(tokenizer))
    manifest = read(path, TOKENIZER_FILE) if path else None
    return int(manifest["base_vocab_size"]) if manifest else None


def _on_the_hub(name: str) -> Path | None:
    """The manifest of a tokenizer that is named as on the hub; None where there is none, or no way to it."""
    from transformers.utils import cached_file

    try:
        found = cached_file(
            name,
            TOKENIZER_MANIFEST,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # a path that is not there, or no name for a hub
        return None
    return None if found is None else Path(found)


def resolve(
    tokenizer,
    checkpoint_rows: int,
    *,
    needs_new_rows: bool,
    explicit: int | None = None,
    manifest: int | None = None,
    mark: dict[str, int] | None = None,
    base_tokenizer=None,
) -> Vocabulary:
    """Decide which rows are new, and check that everything that speaks of it agrees.

    Args:
        tokenizer: the extended tokenizer of the run.
        checkpoint_rows: rows of the input embeddings in the loaded checkpoint, before any resizing.
        needs_new_rows: whether the stage trains new rows only in some matrix.
        explicit: `eeve.base_vocab_size` from the YAML.
        manifest: the size that the tokenizer's manifest names.
        mark: what an earlier stage wrote in the model's config.
        base_tokenizer: the tokenizer that lies beside the base model, if there is one.

    Raises EEVEError with one sentence that says what to change.
    """
    size = id_count(tokenizer)
    base_ids = None if base_tokenizer is None else id_count(base_tokenizer)
    if mark and size > mark["vocab_size"] and mark["vocab_size"] in (explicit, manifest, base_ids):
        mark = None  # extended once more: what was new is the base now
    base_size = _agreed_base_size(explicit, manifest, (mark or {}).get("base_vocab_size"))
    if mark and size != mark["vocab_size"]:
        raise EEVEError(
            f"the tokenizer has {size:,} tokens but the model was trained with {mark['vocab_size']:,}; set "
            "tokenizer_config to the tokenizer of the earlier stages"
        )
    if base_tokenizer is not None:
        _check_first_ids(tokenizer, base_tokenizer)
    if base_size is None:
        base_size = min(checkpoint_rows if base_ids is None else base_ids, size)
    elif not mark and base_ids not in (None, base_size, size):
        raise EEVEError(
            f"the base vocabulary is said to have {base_size:,} tokens, but the ids of the tokenizer beside the base "
            f"model end at {base_ids:,}; set eeve.base_vocab_size: {base_ids}, or leave it out"
        )
    if size < base_size:
        raise EEVEError(
            f"the tokenizer has {size:,} tokens, fewer than the {base_size:,} of the base vocabulary; set "
            "tokenizer_config to the extended tokenizer"
        )
    if size == base_size and needs_new_rows:
        raise EEVEError(
            f"there are no new rows to train: the tokenizer has {size:,} tokens and the model "
            f"{checkpoint_rows:,} rows; set tokenizer_config to an extended tokenizer "
            "(`axolotl eeve tokenizer` builds one), or eeve.base_vocab_size if the rows were added before"
        )
    return Vocabulary(base_size, size, missing_rows_from(base_size, size, checkpoint_rows, mark, base_ids))


def _agreed_base_size(explicit: int | None, manifest: int | None, marked: int | None) -> int | None:
    said = {
        "eeve.base_vocab_size": explicit,
        "the tokenizer's manifest": manifest,
        "the model's config": marked,
    }
    said = {who: value for who, value in said.items() if value is not None}
    if len(set(said.values())) > 1:
        values = ", ".join(f"{who} says {value:,}" for who, value in said.items())
        raise EEVEError(
            f"the size of the base vocabulary is in doubt: {values}; remove eeve.base_vocab_size, or use the "
            "tokenizer that this model was extended with"
        )
    return next(iter(said.values()), None)


def _check_first_ids(tokenizer, base_tokenizer) -> None:
    """The base's ids must mean in the extended tokenizer what they mean in the base's own."""
    extended = {i: piece for piece, i in tokenizer.get_vocab().items()}
    for piece, i in sorted(base_tokenizer.get_vocab().items(), key=lambda entry: entry[1]):
        if extended.get(i) != piece:
            raise EEVEError(
                f"this tokenizer does not extend the base model's: id {i} is {extended.get(i)!r} in it and "
                f"{piece!r} in the base model's tokenizer; build it from this base with `axolotl eeve tokenizer`"
            )


def missing_rows_from(
    base_size: int, size: int, rows: int, mark: dict[str, int] | None, base_ids: int | None
) -> int:
    """The first new row that a checkpoint of `rows` rows lacks; `size` if it has all.

    Args:
        mark: what an earlier stage wrote in the model's config: it has set all rows.
        base_ids: ids of the tokenizer beside the model, None without one.
    """
    if mark:
        return size
    if base_ids is not None and base_ids <= base_size:
        # Rows that the checkpoint has beyond its own tokenizer are padding, never trained.
        return base_size
    return min(rows, size)
