"""Cutting a text into words: the units inside which the merges that make new tokens can happen.

BPE only ever makes tokens of its vocabulary. Where no token, old or new, holds two characters side by
side, no merge crosses the cut between them, and what stands left and right of it is tokenized
independently. A new token is a run of the target scripts' letters, perhaps with the word boundary before
it. So a word is such a run with the boundaries before it, and with whatever else the base's own tokens tie
to it. Encoding the distinct words and weighting by their counts is then encoding the corpus, exactly, for
every token that has a letter of the target scripts; the rest of the text need not be kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import regex

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.spelling import BOUNDARY, Spelling, is_byte_level

_FORMAT = 1  # raise it when words are cut differently: counts on disk are then made anew


@lru_cache
def letter_ranges(scripts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The letters of Unicode `scripts`: first and last of each range.

    Raises EEVEError for a script that Unicode does not know.
    """
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    ranges = []
    for script in scripts:
        try:
            runs = regex.finditer(rf"\p{{Script={script}}}+", everything)
        except regex.error:
            raise EEVEError(
                f"script: {script} is not a Unicode script; use names such as Hangul, Greek, Thai or Han"
            ) from None
        ranges += [(run[0][0], run[0][-1]) for run in runs]
    return tuple(ranges)


def segmentation(state: dict, scripts: Iterable[str]) -> Segmentation:
    """How the text of the base tokenizer `state` (its JSON) falls into words of `scripts`.

    Raises EEVEError for a script that Unicode does not know.
    """
    if is_byte_level(state):
        from eeve_axolotl.tokenizer.byte_level import ByteLevelSegmentation

        return ByteLevelSegmentation(state, scripts)
    return Segmentation(state, scripts)


class Segmentation:
    """How the text of one base tokenizer falls into words of some scripts. Can be pickled."""

    spelling = Spelling()

    def __init__(self, state: dict, scripts: Iterable[str]):
        """
        Args:
            state: the base tokenizer's JSON: a BPE whose alphabet is plain characters (SentencePiece's kind).
            scripts: Unicode script names of the new tokens.

        Raises EEVEError for a script that Unicode does not know.
        """
        self.scripts = tuple(scripts)
        self.digest = hashlib.sha256(json.dumps([_FORMAT, self.scripts, state]).encode()).hexdigest()
        letters = "".join(
            f"{re.escape(first)}-{re.escape(last)}" for first, last in letter_ranges(self.scripts)
        )
        self._letter = re.compile(f"[{letters}]")
        # Of two boundaries or more the base makes a token of its own.
        self._span = re.compile(f"(?:(?<!{BOUNDARY}){BOUNDARY})?[{letters}]+")

        added = {token["content"] for token in state["added_tokens"]}
        tokens = [
            token for token in state["model"]["vocab"] if token not in added and not _BYTE.fullmatch(token)
        ]
        foreign = re.compile(
            f"[{letters}][^{letters}]|[^{letters}{BOUNDARY}][{letters}]|[^{BOUNDARY}]{BOUNDARY}"
        )
        #: Whether a word is nothing but boundaries and then letters: no base token ties them to anything else.
        self.exactly_spans = not any(map(foreign.search, tokens))
        self._tied: set[str] = (
            set()
        )  # characters side by side in a base token, where that is more than a span
        if self.exactly_spans:
            self._chunk = re.compile(f"{BOUNDARY}+[{letters}]*|[{letters}]+")
        else:  # cut where boundaries begin, and then each chunk with care
            self._tied = {token[i : i + 2] for token in tokens for i in range(len(token) - 1)}
            before = {left for left, right in self._tied if right == BOUNDARY} - {BOUNDARY}
            glued = f"(?:(?<=[{_inside(before)}]){BOUNDARY}+[^{BOUNDARY}]*)*" if before else ""
            self._chunk = re.compile(f"(?:{BOUNDARY}+[^{BOUNDARY}]*|[^{BOUNDARY}]+){glued}")

        self._spelling = _spelling(state)
        plain = [token["content"] for token in state["added_tokens"] if _is_plain(token)]
        odd = [token["content"] for token in state["added_tokens"] if not _is_plain(token)]
        odd += [content.replace(" ", BOUNDARY) for content in odd]
        self._plain = _any_of(plain)
        self._odd = _any_of(odd)
        self._reader = _reader(state)
        self._cache: dict[str, tuple[str, ...]] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": {}}

    def letters(self) -> np.ndarray:
        """The code points of the scripts' letters, in order."""
        ranges = letter_ranges(self.scripts)
        return np.unique(np.concatenate([np.arange(ord(a), ord(b) + 1) for a, b in ranges]))

    def characters(self) -> np.ndarray:
        """The code points of the characters that words may have, in order."""
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
        """Whether a word has a letter of the scripts, and so is one."""
        return self._letter.search(word) is not None

    def spans(self, word: str) -> list[str]:
        """The parts of a word that can become new tokens: letters with at most one boundary before them."""
        return self._span.findall(word)

    def is_span(self, token: str) -> bool:
        """Whether a token of the vocabulary is such a part."""
        return self._span.fullmatch(token) is not None

    def pieces(self, text: str) -> list[str]:
        """`text` as the base's model gets it, but with a space for each ▁.

        It is cut at special tokens, normalized and pre-tokenized.
        """
        if self._spelling is None or (self._odd and self._odd.search(text)):
            return self._read(text)
        prefix, once, unless_there = self._spelling
        pieces = []
        sections = self._plain.split(text) if self._plain else [text]
        for n, section in enumerate(sections):
            if not section:
                continue
            piece = section.replace(BOUNDARY, " ")
            if not (once and n) and not (unless_there and piece.startswith(" ")):
                piece = prefix + piece
            pieces.append(piece)
        return pieces

    def _read(self, text: str) -> list[str]:
        """The same through the base's own code: a model that knows only bytes says what it was given."""
        from tokenizers import Tokenizer

        if isinstance(self._reader, str):
            self._reader = Tokenizer.from_str(self._reader)
        encoding = self._reader.encode(text, add_special_tokens=False)
        pieces: list[bytearray] = []
        last = None
        for i, number in zip(encoding.ids, encoding.word_ids, strict=True):
            if i > 255:
                last = None
                continue
            if last is None or number != last:
                pieces.append(bytearray())
            pieces[-1].append(i)
            last = number
        return [piece.decode().replace(BOUNDARY, " ") for piece in pieces]

    def _cut(self, chunk: str) -> tuple[str, ...]:
        """A chunk's words, where base tokens tie the scripts' letters to other characters."""
        found = self._cache.get(chunk)
        if found is None:
            found = tuple(self._cut_anew(chunk))
            if len(self._cache) >= 100_000:
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


_BYTE = re.compile("<0x[0-9A-F]{2}>")


def _inside(characters: Iterable[str]) -> str:
    return "".join(map(re.escape, sorted(characters)))


def _any_of(strings: list[str]) -> re.Pattern | None:
    """A pattern for any of `strings`, the longest first, as the tokenizers library looks for them."""
    longest_first = sorted(filter(None, strings), key=lambda string: (-len(string), string))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _is_plain(token: dict) -> bool:
    """Whether an added token is found wherever its characters stand in the raw text."""
    return not any(token[key] for key in ("single_word", "lstrip", "rstrip", "normalized"))


def _spelling(state: dict) -> tuple[str, bool, bool] | None:
    """How the base spells a text beside ▁ for a space: (what it puts first, at the text's start only,
    unless it is there already), or None if it does more than that."""
    normalizer, pre_tokenizer = state["normalizer"], state["pre_tokenizer"]
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    steps = [step for step in steps if step]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": BOUNDARY}
    if not steps and pre_tokenizer and pre_tokenizer["type"] == "Metaspace":
        if pre_tokenizer["split"] or pre_tokenizer["replacement"] != BOUNDARY:
            return None
        scheme = pre_tokenizer["prepend_scheme"]
        return ("" if scheme == "never" else " ", scheme == "first", True)
    # Gemma splits at spaces when there are none any more.
    if pre_tokenizer and not (
        pre_tokenizer["type"] == "Split"
        and pre_tokenizer["pattern"] == {"String": " "}
        and not pre_tokenizer["invert"]
    ):
        return None
    if steps == [replace]:
        return ("", False, False)
    if steps == [{"type": "Prepend", "prepend": BOUNDARY}, replace]:
        return (" ", False, False)
    return None


def _reader(state: dict) -> str:
    """A tokenizer like `state` whose tokens are bytes (ids 0 to 255) and the special ones."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    added = []
    for token in state["added_tokens"]:
        vocab.setdefault(token["content"], len(vocab))
        added.append({**token, "id": vocab[token["content"]]})
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True, "ignore_merges": False,
        "vocab": vocab, "merges": [],
    }  # fmt: skip
    return json.dumps(
        {**state, "added_tokens": added, "post_processor": None, "decoder": None, "model": model}
    )
