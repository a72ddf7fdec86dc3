"""Words of a BPE whose alphabet is plain characters (SentencePiece's kind: Llama-2, Mistral, Gemma).

A new token is a run of the target scripts' letters, perhaps with the word boundary before it. So a word is such
a run with the boundaries before it, and with whatever else the base's own tokens tie to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from eeve_axolotl.tokenizer.spelling import BOUNDARY, Spelling, steps
from eeve_axolotl.tokenizer.words.base import WordSplitter, any_of

_CACHE = 100_000  # chunks of which the words are remembered
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class _Prefix(NamedTuple):
    """What a base puts before a text, where all else that it does is to spell a space as ▁."""

    text: str
    """A space, or nothing."""

    once: bool
    """Only at the text's start, not after each special token."""

    unless_there: bool
    """Not where the text begins with a space already."""


class Sections:
    """How a base cuts a text at its added tokens, and what it puts before each section.

    Args:
        state: the base tokenizer's JSON.
    """

    def __init__(self, state: dict):
        self._prefix = _prefix(state)
        plain = [token["content"] for token in state["added_tokens"] if _is_plain(token)]
        odd = [token["content"] for token in state["added_tokens"] if not _is_plain(token)]
        odd += [content.replace(" ", BOUNDARY) for content in odd]
        self._plain = any_of(plain)
        self._odd = any_of(odd)

    @property
    def are_known(self) -> bool:
        """Whether the base changes a text by no more than a prefix and ▁ for a space."""
        return self._prefix is not None

    def apart(self, text: str) -> list[str] | None:
        """The sections as the base's model gets them, but with a space for each ▁, and between any two an added token.

        A section may be empty. None where the base changes the text in other ways, or an added token takes more than
        its own characters.
        """
        if self._prefix is None or (self._odd and self._odd.search(text)):
            return None
        if self._plain is None or not self._plain.search(text):
            return [_prefixed(text, 0, self._prefix)]
        parts = re.split(f"({self._plain.pattern})", text)
        return [part if n % 2 else _prefixed(part, n // 2, self._prefix) for n, part in enumerate(parts)]


def _prefixed(section: str, number: int, prefix: _Prefix) -> str:
    """A text's section `number` as the base's model gets it, but with a space for each ▁."""
    piece = section.replace(BOUNDARY, " ")
    if not piece or (prefix.once and number) or (prefix.unless_there and piece.startswith(" ")):
        return piece
    return prefix.text + piece


class PlainWordSplitter(WordSplitter):
    """How the text of a base with an alphabet of characters falls into words of some scripts. Can be pickled."""

    spelling = Spelling()

    def __init__(self, state: dict, scripts: Iterable[str]):
        super().__init__(state, scripts)
        letters = self._letters
        added = {token["content"] for token in state["added_tokens"]}
        tokens = [
            token for token in state["model"]["vocab"] if token not in added and not _BYTE.fullmatch(token)
        ]
        foreign = re.compile(
            f"[{letters}][^{letters}]|[^{letters}{BOUNDARY}][{letters}]|[^{BOUNDARY}]{BOUNDARY}"
        )
        # No token of the base ties the letters to anything but boundaries before them.
        self.exactly_spans = not any(map(foreign.search, tokens))
        #: Characters side by side in a base token, where words are more than spans.
        self._tied: set[str] = set()
        if self.exactly_spans:
            self._chunk = re.compile(f"{BOUNDARY}+[{letters}]*|[{letters}]+")
        else:  # cut where boundaries begin, and then each chunk with care
            self._tied = {token[i : i + 2] for token in tokens for i in range(len(token) - 1)}
            before = {pair[0] for pair in self._tied if pair[1] == BOUNDARY} - {BOUNDARY}
            glued = f"(?:(?<=[{_inside(before)}]){BOUNDARY}+[^{BOUNDARY}]*)*" if before else ""
            self._chunk = re.compile(f"(?:{BOUNDARY}+[^{BOUNDARY}]*|[^{BOUNDARY}]+){glued}")

        self._sections = Sections(state)
        self._cache: dict[str, tuple[str, ...]] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": {}}

    def characters(self) -> np.ndarray:
        """The code points of the characters that words may have: int64, sorted, each once."""
        return np.union1d(self.letters(), [ord(character) for character in {BOUNDARY, *"".join(self._tied)}])

    def words(self, text: str) -> list[str]:
        """The words of a document in order, spaces spelled ▁."""
        words: list[str] = []
        for piece in self.pieces(text):
            chunks = self._chunk.findall(piece.replace(" ", BOUNDARY))
            if self.exactly_spans:
                words += filter(self.has_letter, chunks)
            else:
                for chunk in chunks:
                    words += self._cut(chunk)
        return words

    def has_letter(self, word: str) -> bool:
        """Whether a chunk of text has a letter of the scripts, and so is a word."""
        return self.has_script(word)

    def spans(self, word: str) -> list[str]:
        """The parts of a word that can become new tokens: letters after at most one ▁."""
        return self._span.findall(word)

    def is_span(self, token: str) -> bool:
        """Whether a token of the vocabulary is such a part, and nothing else."""
        return self._span.fullmatch(token) is not None

    def pieces(self, text: str) -> list[str]:
        """`text` as the base's model gets it, but with a space for each ▁.

        It is cut at special tokens, normalized and pre-tokenized.
        """
        apart = self._sections.apart(text)
        if apart is None:
            return [piece.decode().replace(BOUNDARY, " ") for piece in self._reader.pieces(text)]
        return [piece for piece in apart[::2] if piece]

    def _cut(self, chunk: str) -> tuple[str, ...]:
        """A chunk's words, where base tokens tie the scripts' letters to other characters."""
        found = self._cache.get(chunk)
        if found is None:
            found = tuple(self._cut_anew(chunk))
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            self._cache[chunk] = found
        return found

    def _cut_anew(self, chunk: str) -> list[str]:
        start, parts = 0, []
        letters = [self.has_letter(character) for character in chunk]
        for i in range(1, len(chunk) + 1):
            if i < len(chunk):
                of_new_token = letters[i] and (letters[i - 1] or chunk[i - 1] == BOUNDARY)
                if of_new_token or chunk[i - 1 : i + 1] in self._tied:
                    continue
            if any(letters[start:i]):
                parts.append(chunk[start:i])
            start = i
        return parts

    def _byte_vocabulary(self) -> dict[str, int]:
        return {f"<0x{byte:02X}>": byte for byte in range(256)}

    def _byte_model(self, state: dict) -> dict[str, Any]:
        return {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True, "ignore_merges": False,
        }  # fmt: skip


def _inside(characters: Iterable[str]) -> str:
    """The characters as they stand inside a pattern's brackets."""
    return "".join(map(re.escape, sorted(characters)))


def _is_plain(token: dict) -> bool:
    """Whether an added token is found wherever its characters stand in the raw text."""
    return not any(token[key] for key in ("single_word", "lstrip", "rstrip", "normalized"))


def _prefix(state: dict) -> _Prefix | None:
    """What the base puts before a text; None if it changes text in other ways than by a prefix and ▁ for a space."""
    pre_tokenizer = state["pre_tokenizer"]
    normalizers = steps(state["normalizer"])
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": BOUNDARY}
    if not normalizers and pre_tokenizer and pre_tokenizer["type"] == "Metaspace":
        if pre_tokenizer["split"] or pre_tokenizer["replacement"] != BOUNDARY:
            return None
        scheme = pre_tokenizer["prepend_scheme"]
        return _Prefix("" if scheme == "never" else " ", once=scheme == "first", unless_there=True)
    # Gemma splits at spaces when there are none any more.
    if pre_tokenizer and not (
        pre_tokenizer["type"] == "Split"
        and pre_tokenizer["pattern"] == {"String": " "}
        and not pre_tokenizer["invert"]
    ):
        return None
    if normalizers == [replace]:
        return _Prefix("", once=False, unless_there=False)
    if normalizers == [{"type": "Prepend", "prepend": BOUNDARY}, replace]:
        return _Prefix(" ", once=False, unless_there=False)
    return None
