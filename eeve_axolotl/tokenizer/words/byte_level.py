"""Words of a byte-level BPE (Llama-3, Qwen, GPT-2).

Merges stay inside the pieces that the base's pre-tokenizer makes, so a word is such a piece, spelled in
the base's alphabet of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from eeve_axolotl.tokenizer.spelling import ByteLevel, byte_level_alphabet, steps
from eeve_axolotl.tokenizer.words.base import WordSplitter, any_of

_CACHE = 200_000  # words of which it is remembered whether they have a letter


class ByteLevelWordSplitter(WordSplitter):
    """How the text of a byte-level base falls into words of some scripts. Can be pickled."""

    spelling: ByteLevel = ByteLevel()
    exactly_spans = False

    def __init__(self, state: dict, scripts: Iterable[str]):
        super().__init__(state, scripts)
        self._added = any_of([token["content"] for token in state["added_tokens"]])
        self._normalizes = bool(steps(state["normalizer"]))
        lacking = byte_level_alphabet().keys() - state["model"]["vocab"].keys()
        #: Bytes without a token: the base's model passes over them, so what stands around them may merge.
        self._lacking = str.maketrans("", "", "".join(sorted(lacking))) if lacking else None
        self._cache: dict[str, bool] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": {}}

    def characters(self) -> np.ndarray:
        """The code points of the base's alphabet: int64, sorted."""
        return np.sort([ord(character) for character in byte_level_alphabet()])

    def words(self, text: str) -> list[str]:
        """The words of a document in order, in the base's alphabet."""
        pieces = self.pieces(text)
        if self._lacking is not None:
            pieces = [piece.translate(self._lacking) for piece in pieces]
        return [piece for piece in pieces if self.has_letter(piece)]

    def has_letter(self, word: str) -> bool:
        """Whether a piece in the base's alphabet has a letter of the scripts, and so is a word."""
        found = self._cache.get(word)
        if found is None:
            found = not word.isascii() and self.has_script(self.spelling.read(word))
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            self._cache[word] = found
        return found

    def spans(self, word: str) -> list[str]:
        """The parts of a word that can become new tokens, as people read them: letters after at most one ▁."""
        return self._span.findall(self.spelling.read(word))

    def is_span(self, token: str) -> bool:
        """Whether a token in the base's alphabet is such a part, and nothing else."""
        text = self.spelling.read(token)
        return self._span.fullmatch(text) is not None and self.spelling.spell(text) == token

    def pieces(self, text: str) -> list[str]:
        """`text` as the base's model gets it: cut at special tokens, normalized and pre-tokenized."""
        if not self._normalizes and not self.has_script(text):
            return []
        pieces = self.plain_pieces(text)
        if pieces is not None:
            return pieces
        return [self.spelling.spell_bytes(piece) for piece in self._reader.pieces(text)]

    def plain_pieces(self, text: str) -> list[str] | None:
        """`text` as `pieces` has it, whether it has letters of the scripts or not; None if it has an added token."""
        tokenizer = self._reader.tokenizer
        normal = tokenizer.normalizer.normalize_str(text) if self._normalizes else text
        if self._added and (self._added.search(text) or self._added.search(normal)):
            return None
        return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    def _byte_vocabulary(self) -> dict[str, int]:
        return byte_level_alphabet()

    def _byte_model(self, state: dict) -> dict[str, Any]:
        return {**state["model"], "dropout": None, "unk_token": None, "ignore_merges": False}
