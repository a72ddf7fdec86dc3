"""Words joined where a token may reach over the space between two of them (superwords.py).

A token that reaches over a space has a joint there: how the word before ends, and how the word after begins. Two words are
joined where they end and begin as one of the joints does. Between others no such token lies, so what is joined is again
tokenized independently of what stands around it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from eeve_axolotl.tokenizer.spelling import BOUNDARY, is_superword
from eeve_axolotl.tokenizer.words.plain import PlainWordSplitter, Sections

_CACHE = 100_000  # words of which it is remembered how they end and begin

Joint = tuple[str, str]
"""What stands before a space, and after it with that space: ▁할 and ▁수, 에 and ▁대한."""


def reason_against(state: dict, splitter: object) -> str | None:
    """Why no token of a base can reach over a space, or none that can be counted; None if they can.

    Args:
        state: the base tokenizer's JSON.
        splitter: its own.
    """
    if not isinstance(splitter, PlainWordSplitter):
        return "its pre-tokenizer cuts text between words"
    if not Sections(state).are_known:
        return "it cuts or changes text by more than ▁ for a space"
    added = {token["content"] for token in state["added_tokens"]}
    if any(is_superword(token) for token in state["model"]["vocab"] if token not in added):
        return "some of its own tokens do already, so words cannot be told apart"
    if not splitter.exactly_spans:
        return "its own tokens tie letters of the script to other characters"
    return None


class JoinedWordSplitter(PlainWordSplitter):
    """How text falls into words, joined at some joints. Can be pickled.

    Only for a base that `reason_against` says nothing against.
    """

    def __init__(self, state: dict, scripts: Iterable[str], joints: Iterable[Joint] = ()):
        """
        Args:
            state: the base tokenizer's JSON.
            scripts: Unicode script names of the new tokens.
            joints: where words are joined.
        """
        super().__init__(state, scripts)
        self.exactly_spans = False  # what is joined is more
        self._joints = frozenset(joints)
        self._lefts, self._rights = ({joint[side] for joint in self._joints} for side in (0, 1))
        self.digest = hashlib.sha256(json.dumps([self.digest, sorted(self._joints)]).encode()).hexdigest()
        self._stretch = re.compile(f"{BOUNDARY}*[{self._letters}]+(?:{BOUNDARY}[{self._letters}]+)*")
        self._ends: dict[str, tuple[str, ...]] = {}
        self._begins: dict[str, tuple[str, ...]] = {}

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_ends": {}, "_begins": {}}

    def stretches(self, text: str) -> Iterator[list[str]]:
        """The words of a document, those with nothing but one space between them together."""
        for piece in self.pieces(text):
            for stretch in self._stretch.findall(piece.replace(" ", BOUNDARY)):
                yield apart(stretch)

    def words(self, text: str) -> list[str]:
        """The words of a document in order, joined, spaces spelled ▁."""
        found = []
        for words in self.stretches(text):
            joined = words[0]
            for one, other in pairwise(words):
                if self._are_joined(one, other):
                    joined += other
                else:
                    found.append(joined)
                    joined = other
            found.append(joined)
        return found

    def _are_joined(self, one: str, other: str) -> bool:
        ends = self._ends.get(one)
        if ends is None:
            ends = tuple(one[n:] for n in range(len(one)) if one[n:] in self._lefts)
            _remember(self._ends, one, ends)
        if not ends:
            return False
        begins = self._begins.get(other)
        if begins is None:
            begins = tuple(other[:n] for n in range(2, len(other) + 1) if other[:n] in self._rights)
            _remember(self._begins, other, begins)
        return any((end, begin) in self._joints for end in ends for begin in begins)


def apart(joined: str) -> list[str]:
    """The words of what is joined, each with the spaces before it."""
    lead = len(joined) - len(joined.lstrip(BOUNDARY))
    first, *others = joined[lead:].split(BOUNDARY)
    return [joined[:lead] + first, *(BOUNDARY + word for word in others)]


def _remember(cache: dict[str, tuple[str, ...]], word: str, found: tuple[str, ...]) -> None:
    if len(cache) >= _CACHE:
        cache.clear()
    cache[word] = found
