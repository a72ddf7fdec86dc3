"""What every word splitter offers, and what both kinds share."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import regex

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.spelling import BOUNDARY, Spelling

_FORMAT = 1  # raise it when words are cut differently: counts on disk are then made anew


@lru_cache
def letter_ranges(scripts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The letters of Unicode `scripts`: first and last of each range.

    Raises EEVEError for a script that Unicode does not know.
    """
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    ranges: list[tuple[str, str]] = []
    for script in scripts:
        try:
            runs = regex.finditer(rf"\p{{Script={script}}}+", everything)
        except regex.error:
            raise EEVEError(
                f"script: {script} is not a Unicode script; use names such as Hangul, Greek, Thai or Han"
            ) from None
        ranges += [(run[0][0], run[0][-1]) for run in runs]
    return tuple(ranges)


class WordSplitter(ABC):
    """How the text of one base tokenizer falls into words of some scripts. Can be pickled.

    A word is spelled in the vocabulary's alphabet. It has at least one letter of the scripts.
    """

    scripts: tuple[str, ...]
    """Unicode script names of the new tokens."""

    digest: str
    """A hash of all that decides where words begin and end."""

    spelling: Spelling
    """How the base's vocabulary spells text."""

    exactly_spans: bool
    """Whether every word is nothing but boundaries (▁) and then letters."""

    def __init__(self, state: dict, scripts: Iterable[str]):
        """
        Args:
            state: the base tokenizer's JSON.
            scripts: Unicode script names of the new tokens.

        Raises EEVEError for a script that Unicode does not know.
        """
        self.scripts = tuple(scripts)
        self.digest = hashlib.sha256(json.dumps([_FORMAT, self.scripts, state]).encode()).hexdigest()
        #: The letters, as they stand inside a pattern's brackets.
        self._letters = "".join(
            f"{re.escape(first)}-{re.escape(last)}" for first, last in letter_ranges(self.scripts)
        )
        self._letter = re.compile(f"[{self._letters}]")
        # Of two boundaries or more the base makes a token of its own.
        self._span = re.compile(f"(?:(?<!{BOUNDARY}){BOUNDARY})?[{self._letters}]+")
        self._reader = _ByteReader(state, self._byte_vocabulary(), self._byte_model(state))

    def letters(self) -> np.ndarray:
        """The code points of the scripts' letters: int64, sorted, each once."""
        ranges = letter_ranges(self.scripts)
        return np.unique(np.concatenate([np.arange(ord(a), ord(b) + 1) for a, b in ranges]))

    def has_script(self, text: str) -> bool:
        """Whether a text, as people read it, has a letter of the scripts."""
        return self._letter.search(text) is not None

    @abstractmethod
    def characters(self) -> np.ndarray:
        """The code points of the characters that words may have: int64, sorted, each once."""

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """`text` as the base's model gets it: cut at special tokens, normalized and pre-tokenized.

        Where `exactly_spans` holds, ▁ is still a space.
        """

    @abstractmethod
    def words(self, text: str) -> list[str]:
        """The words of a document in order."""

    @abstractmethod
    def has_letter(self, word: str) -> bool:
        """Whether what is spelled in the vocabulary's alphabet has a letter of the scripts, and so is a word."""

    @abstractmethod
    def spans(self, word: str) -> list[str]:
        """The parts of a word that can become new tokens, as people read them: letters after at most one ▁."""

    @abstractmethod
    def is_span(self, token: str) -> bool:
        """Whether a token of the vocabulary is such a part, and nothing else."""

    @abstractmethod
    def _byte_vocabulary(self) -> dict[str, int]:
        """The base's tokens for single bytes, with the byte as id."""

    @abstractmethod
    def _byte_model(self, state: dict) -> dict[str, Any]:
        """The `model` of a tokenizer that has only the tokens for bytes, but for its vocabulary."""


class _ByteReader:
    """Says what the base's own code makes of a text before its model: a model that knows only bytes gets it."""

    def __init__(self, state: dict, vocabulary: dict[str, int], model: dict[str, Any]):
        added = []
        for token in state["added_tokens"]:
            vocabulary.setdefault(token["content"], len(vocabulary))
            added.append({**token, "id": vocabulary[token["content"]]})
        changed = {
            "added_tokens": added,
            "post_processor": None,
            "decoder": None,
            "model": {**model, "vocab": vocabulary, "merges": []},
        }
        self._json = json.dumps({**state, **changed})
        self._tokenizer: Any = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_tokenizer": None}

    @property
    def tokenizer(self) -> Any:
        """The tokenizer itself, made when it is first needed."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer  # not in the processes that never need it

            self._tokenizer = Tokenizer.from_str(self._json)
        return self._tokenizer

    def pieces(self, text: str) -> list[bytes]:
        """The bytes of each piece that the pre-tokenizer makes, without special tokens."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        pieces: list[bytearray] = []
        last = None
        for byte, number in zip(encoding.ids, encoding.word_ids, strict=True):
            if byte > 255:  # a special token
                last = None
                continue
            if last is None or number != last:
                pieces.append(bytearray())
            pieces[-1].append(byte)
            last = number
        return [bytes(piece) for piece in pieces]


def any_of(strings: list[str]) -> re.Pattern[str] | None:
    """A pattern for any of `strings`, the longest first, as the tokenizers library looks for them."""
    longest_first = sorted(filter(None, strings), key=lambda string: (-len(string), string))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
