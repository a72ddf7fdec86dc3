"""The tokens of a text counted by its words, without the tokenizers library: which tokenizers allow it, and how.

A word's tokens are the same wherever it stands, so each distinct word is tokenized once. `tokenizer/words` knows how a base
makes of a text what its model gets; `kernels/tokens.py` cuts that into words, merges and counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eeve_axolotl.corpus.kernels import tokens as kernels
from eeve_axolotl.corpus.kernels.characters import points
from eeve_axolotl.tokenizer.kernels.merges import vocabulary
from eeve_axolotl.tokenizer.spelling import BOUNDARY, byte_level_alphabet, is_byte_level
from eeve_axolotl.tokenizer.words import ByteLevelWordSplitter
from eeve_axolotl.tokenizer.words.plain import Sections

WORDS = 1 << 17  # distinct words that are remembered, at most; then all are forgotten
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_JOIN = "\n"  # in no byte-level alphabet
_SCRIPTS = ("Latin",)  # a splitter wants some; what is used of it here does not depend on them


def reason_against(state: dict[str, Any]) -> str | None:
    """Why the texts of a tokenizer cannot be counted by words, None if they can.

    Args:
        state: the tokenizer's JSON.
    """
    model = state["model"]
    if model.get("type") != "BPE":
        return f"its model is {model.get('type')}"
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            return f"its model has {key}"
    halves = {half for merge in model["merges"] for half in _halves(merge)}
    if is_byte_level(state):
        if byte_level_alphabet().keys() - model["vocab"].keys():
            return "it has no token for some bytes"
        return None
    if not model.get("byte_fallback") or _BYTES - model["vocab"].keys():
        return "characters that it lacks are not spelled in bytes"
    if BOUNDARY not in model["vocab"]:
        return f"it has no {BOUNDARY}"
    if halves & _BYTES:
        return "it merges bytes"
    if model.get("ignore_merges"):
        return "it takes whole texts without merges"
    return None if Sections(state).are_known else "it changes texts by more than ▁ for a space"


def _halves(merge: str | list[str]) -> list[str]:
    return merge if isinstance(merge, list) else merge.split(" ")


class ByWords:
    """Counts the tokens of texts by their words.

    Args:
        state: the JSON of a tokenizer that `reason_against` says nothing against.
        first_new: tokens from this one on are new.
        new_tokens: how many these are.
    """

    def __init__(self, state: dict[str, Any], first_new: int, new_tokens: int):
        byte_level = is_byte_level(state)
        self._splitter = ByteLevelWordSplitter(state, _SCRIPTS) if byte_level else Sections(state)
        self._added = {token["content"]: token["id"] for token in state["added_tokens"]}
        self._first_new = first_new
        self._bpe = _bpe(state, first_new)
        #: Tokens that a word takes whole before any merge (Llama-3's `ignore_merges`).
        self._whole = list(state["model"]["vocab"].items()) if state["model"].get("ignore_merges") else []
        self._times = np.zeros(new_tokens, np.int32)
        self._found = np.zeros(new_tokens + 1, np.int32)
        words = WORDS
        while words < 2 * len(self._whole):
            words *= 2
        self._memo = kernels.Memo(
            rows=np.zeros((2 * words, 4), np.uint64),
            new=np.zeros(words + kernels.LONGEST, np.int32),
            used=np.zeros(2, np.int64),
        )
        self._remember_whole()

    def count(self, text: str) -> tuple[int, np.ndarray, np.ndarray] | None:
        """How many tokens a text has, its new tokens counted from 0 (ascending), and how often it has each (both int32).

        None where only the tokenizer itself can tell.
        """
        pieces = self._pieces(text)
        if pieces is None:
            return None
        total = 0
        for piece in pieces:
            if isinstance(piece, int):
                total += 1
                self._add(piece)
                continue
            tokens = self._count(points(piece))
            if tokens < 0:
                kernels.take(self._times, self._found)
                return None
            total += tokens
        return total, *kernels.take(self._times, self._found)

    def _count(self, text: np.ndarray) -> int:
        """The tokens of code points, -1 if one of the words is too long."""
        total = 0
        while True:
            tokens, end = kernels.count(text, self._times, self._found, *self._bpe, *self._memo)
            if tokens < 0:
                return -1
            total += tokens
            if end == len(text):
                return total
            text = text[end:]
            self._forget()

    def _pieces(self, text: str) -> Iterator[str | int] | list[str] | None:
        """What the model gets, and the added tokens in between by their ids; None where only the tokenizer can tell."""
        if isinstance(self._splitter, Sections):
            apart = self._splitter.apart(text)
            if apart is None:
                return None
            return (piece if n % 2 == 0 else self._added[piece] for n, piece in enumerate(apart) if piece)
        pieces = self._splitter.plain_pieces(text)
        return None if pieces is None else [_JOIN.join(pieces)]

    def _add(self, token: int) -> None:
        new = token - self._first_new
        if new >= 0:
            if not self._times[new]:
                self._found[self._found[-1]] = new
                self._found[-1] += 1
            self._times[new] += 1

    def _forget(self) -> None:
        """Forget all words but those that are tokens as a whole."""
        self._memo.rows[:] = 0
        self._memo.used[:] = 0
        self._remember_whole()

    def _remember_whole(self) -> None:
        for token, number in self._whole:
            symbols = self._bpe.symbols[points(token)]
            if 0 < len(token) < kernels.LONGEST and (symbols >= 0).all():
                kernels.remember(symbols, np.array([number], np.int32), self._first_new, *self._memo)


def _bpe(state: dict[str, Any], first_new: int) -> kernels.Bpe:
    ids = state["model"]["vocab"]
    symbols = np.full(0x110000, kernels.NONE, np.int32)
    for token, number in ids.items():
        if len(token) == 1:
            symbols[ord(token)] = number
    if is_byte_level(state):
        symbols[ord(_JOIN)] = kernels.BREAK
    else:
        symbols[ord(" ")] = symbols[ord(BOUNDARY)]
    pairs, tied = {}, set()
    for rank, merge in enumerate(state["model"]["merges"]):
        left, right = _halves(merge)
        pairs[ids[left], ids[right]] = rank, ids[left + right]
        tied.add((ids.get(left[-1], -1), ids.get(right[0], -1)))
    merges = vocabulary(symbols, pairs)
    may_join = np.array([pair for pair in tied if min(pair) >= 0], np.int32).reshape(-1, 2)
    whole = state["model"].get("ignore_merges")
    table = np.empty(0, np.uint8) if whole else kernels.tie(may_join[:, 0].copy(), may_join[:, 1].copy())
    active = np.ones(max(ids.values()) + 1, np.bool_)
    made = np.zeros(len(state["model"]["merges"]), np.int64)
    return kernels.Bpe(symbols, merges.keys, merges.values, active, made, table, first_new)
