"""How many tokens a text has under the extended tokenizer, and which new tokens: by its words where that is exact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from eeve_axolotl.corpus.arrays import array_of, lists_of
from eeve_axolotl.corpus.by_words import ByWords, reason_against
from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer.spelling import spelling_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOG = logger("corpus")
_CHECKED = 32  # texts of which the tokenizer itself counts the tokens too

Counted = tuple[int, np.ndarray, np.ndarray]
"""Tokens of a text; its new tokens counted from 0, ascending; how often it has each of them."""


class TokenCounter:
    """Counts new tokens with the extended tokenizer in `directory`.

    Args:
        directory: of a tokenizer that AutoTokenizer loads; its `tokenizer.json` is read if there is one.
        base_vocab_size: tokens of the base tokenizer; ids from here on are new.
    """

    def __init__(self, directory: str | Path, base_vocab_size: int):
        self.directory = Path(directory)
        self.base_vocab_size = base_vocab_size
        self._added = {token["content"]: int(token["id"]) for token in self._state["added_tokens"]}
        ids = {**self._state["model"]["vocab"], **self._added}
        self.vocab_size = max(ids.values(), default=-1) + 1
        self._left_to_check = _CHECKED

    @cached_property
    def _state(self) -> dict[str, Any]:
        """The tokenizer's JSON."""
        file = self.directory / "tokenizer.json"
        text = file.read_bytes() if file.is_file() else self._tokenizer.to_str()
        state: dict[str, Any] = orjson.loads(text)
        return {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, **state}

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        from tokenizers import Tokenizer

        # One process per core does better than threads, and datatrove starts the processes.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        file = self.directory / "tokenizer.json"
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(str(self.directory)).backend_tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _by_words(self) -> ByWords | None:
        reason = reason_against(self._state)
        if reason:
            LOG.info("%s: whole texts are tokenized, since %s", self.directory, reason)
        counter = None if reason else ByWords(self._state, self.base_vocab_size, self.new_tokens)
        _ = self._pieces  # all else that is ever asked of the state
        del self._state  # many objects
        return counter

    @property
    def new_tokens(self) -> int:
        """Number of new tokens."""
        return self.vocab_size - self.base_vocab_size

    def pieces(self) -> list[str]:
        """The new tokens in the order of their ids, spelled as for a person: ▁ for the space before a word."""
        return self._pieces

    @cached_property
    def _pieces(self) -> list[str]:
        read = spelling_of(self._state).read
        spelled = {number: read(token) for token, number in self._new(self._state["model"]["vocab"])}
        spelled |= {number: token for token, number in self._new(self._added)}
        # A vocabulary may leave an id out; there is nothing to show then.
        return [spelled.get(number, "") for number in range(self.base_vocab_size, self.vocab_size)]

    def _new(self, ids: dict[str, int]) -> list[tuple[str, int]]:
        return [(token, number) for token, number in ids.items() if number >= self.base_vocab_size]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def count(self, texts: Sequence[str]) -> dict[str, pa.Array]:
        """The columns bytes, tokens, new_tokens, ids and counts of `counts.SCHEMA` for `texts`."""
        counted = list(map(self._counted, texts))
        offsets = np.cumsum([0, *(len(new) for _, new, _ in counted)]).astype(np.int32)
        new, times = (
            np.concatenate([np.empty(0, np.int32), *(one[which] for one in counted)]) for which in (1, 2)
        )
        numbers = {
            "bytes": [len(text.encode()) for text in texts],
            "tokens": [tokens for tokens, _, _ in counted],
            "new_tokens": [times.sum() for _, _, times in counted],
        }
        kind = pa.list_(pa.int32())
        lists = {"ids": lists_of(offsets, new, kind), "counts": lists_of(offsets, times, kind)}
        return {name: array_of(values, pa.int64()) for name, values in numbers.items()} | lists

    def _counted(self, text: str) -> Counted:
        counted = self._by_words.count(text) if self._by_words else None
        if counted is None:
            return self._counted_whole(text)
        if self._left_to_check:
            self._left_to_check -= 1
            whole = self._counted_whole(text)
            if not self._left_to_check:
                del self._tokenizer  # the same
            if not _are_equal(counted, whole):
                LOG.warning(
                    "%s: whole texts are tokenized, since by words a text has other tokens", self.directory
                )
                self._by_words = None
                return whole
        return counted

    def _counted_whole(self, text: str) -> Counted:
        """What the tokenizer itself makes of a text."""
        ids = np.array(self.ids([text])[0], np.int64)
        new, times = np.unique(ids[ids >= self.base_vocab_size] - self.base_vocab_size, return_counts=True)
        return len(ids), new.astype(np.int32), times.astype(np.int32)


def _are_equal(one: Counted, other: Counted) -> bool:
    return one[0] == other[0] and np.array_equal(one[1], other[1]) and np.array_equal(one[2], other[2])


@lru_cache(maxsize=1)
def _counter(directory: str, base_vocab_size: int, changed: int) -> TokenCounter:
    return TokenCounter(directory, base_vocab_size)


def counter_of(directory: str, base_vocab_size: int) -> TokenCounter:
    """The counter of the tokenizer in `directory`: in one process the same one as long as its files do not change."""
    files = [file.stat() for file in sorted(Path(directory).glob("*")) if file.is_file()]
    return _counter(
        directory, base_vocab_size, hash(tuple((file.st_mtime_ns, file.st_size) for file in files))
    )
