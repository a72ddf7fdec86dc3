"""Words of a byte-level BPE (Llama-3, Qwen, GPT-2), and where its tokens cut letters in two.

Merges stay inside the pieces that the base's pre-tokenizer makes, so a word is such a piece, spelled in
the base's alphabet of bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import regex

from eeve_axolotl.embeddings import byte_level_alphabet
from eeve_axolotl.tokenizer.spelling import BOUNDARY, ByteLevel, steps
from eeve_axolotl.tokenizer.words import _FORMAT, Segmentation, _any_of, letter_ranges

_CACHE = 200_000


class ByteLevelSegmentation(Segmentation):
    """How the text of a byte-level base falls into words of some scripts. Can be pickled."""

    spelling = ByteLevel()
    exactly_spans = False

    def __init__(self, state: dict, scripts: Iterable[str]):
        """
        Args:
            state: the base tokenizer's JSON.
            scripts: Unicode script names of the new tokens.

        Raises EEVEError for a script that Unicode does not know.
        """
        self.scripts = tuple(scripts)
        self.digest = hashlib.sha256(json.dumps([_FORMAT, self.scripts, state]).encode()).hexdigest()
        letters = "".join(
            f"{regex.escape(first)}-{regex.escape(last)}" for first, last in letter_ranges(self.scripts)
        )
        self._letter = regex.compile(f"[{letters}]")
        self._span = regex.compile(f"(?:(?<!{BOUNDARY}){BOUNDARY})?[{letters}]+")
        self._added = _any_of([token["content"] for token in state["added_tokens"]])
        self._normalizes = bool(steps(state["normalizer"]))
        self._reader = _reader(state)
        self._tokenizer = None
        self._cache: dict[str, bool] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": {}, "_tokenizer": None}

    def characters(self) -> np.ndarray:
        """The code points of the base's alphabet, in order."""
        return np.sort([ord(character) for character in byte_level_alphabet()])

    def words(self, text: str) -> list[str]:
        """The words of a document in order, in the base's alphabet."""
        return [piece for piece in self.pieces(text) if self.has_letter(piece)]

    def has_letter(self, word: str) -> bool:
        """Whether a word has a letter of the scripts, and so is one."""
        found = self._cache.get(word)
        if found is None:
            found = not word.isascii() and self._letter.search(self.spelling.read(word)) is not None
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            self._cache[word] = found
        return found

    def spans(self, word: str) -> list[str]:
        """The parts of a word that can become new tokens: letters with at most one ▁ before them."""
        return self._span.findall(self.spelling.read(word))

    def is_span(self, token: str) -> bool:
        """Whether a token in the base's alphabet is such a part."""
        text = self.spelling.read(token)
        return self._span.fullmatch(text) is not None and self.spelling.spell(text) == token

    def pieces(self, text: str) -> list[str]:
        """`text` as the base's model gets it: cut at special tokens, normalized and pre-tokenized."""
        if not self._normalizes and not self._letter.search(text):
            return []
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_str(self._reader)
        normal = self._tokenizer.normalizer.normalize_str(text) if self._normalizes else text
        if not (self._added and (self._added.search(text) or self._added.search(normal))):
            return [piece for piece, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        pieces: list[str] = []
        last = None
        for i, token, number in zip(encoding.ids, encoding.tokens, encoding.word_ids, strict=True):
            if i > 255:
                last = None
                continue
            if last is None or number != last:
                pieces.append("")
            pieces[-1] += token
            last = number
        return pieces


def _reader(state: dict) -> str:
    """A tokenizer like `state` whose tokens are the bytes (ids 0 to 255) and the special ones."""
    vocab = byte_level_alphabet()
    added = []
    for token in state["added_tokens"]:
        vocab.setdefault(token["content"], len(vocab))
        added.append({**token, "id": vocab[token["content"]]})
    model = {
        **state["model"],
        "dropout": None,
        "unk_token": None,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": [],
    }
    return json.dumps(
        {**state, "added_tokens": added, "post_processor": None, "decoder": None, "model": model}
    )
