"""The single letters that a base lacks: what its vocabulary must have before words can be made of them.

A SentencePiece base spells such a letter in byte tokens that never merge: the letter itself becomes a token.
A byte-level base makes it of two to four tokens, and has tokens that end or begin inside a letter (`Ġ` with
the first byte, or a whole letter with the first byte of the next). So there a letter is the smallest run of
base tokens that begins and ends between letters. One of three tokens or more needs tokens for its beginnings,
the fragments, that its merges lead over.
"""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

from eeve_axolotl.tokenizer.base import model_of
from eeve_axolotl.tokenizer.counting import WordTable
from eeve_axolotl.tokenizer.spelling import BOUNDARY, ByteLevel


@dataclass
class Letters:
    """Letters in the vocabulary's alphabet, the most frequent first.

    counts: how often the corpus has each. saves: how many tokens it would save each time.
    fragments: for each letter the tokens that lead to it, shortest first.
    """

    counts: Counter[str] = field(default_factory=Counter)
    saves: dict[str, int] = field(default_factory=dict)
    fragments: dict[str, list[str]] = field(default_factory=dict)

    def needed(self, letters: list[str]) -> list[str]:
        """The fragments of `letters`, each before those that it leads to."""
        found = {fragment for letter in letters for fragment in self.fragments.get(letter, ())}
        return sorted(found, key=lambda fragment: (len(fragment), fragment))


def letters_of(state: dict, table: WordTable) -> Letters:
    """The letters of a table's words that the base tokenizer `state` does not have as one token."""
    if isinstance(table.segmentation.spelling, ByteLevel):
        return _of_bytes(state, table)
    base = state["model"]["vocab"]
    letters = Letters()
    for span, count in table.spans():
        for letter in span.lstrip(BOUNDARY):
            letters.counts[letter] += count
    letters.counts = Counter({letter: n for letter, n in letters.counts.most_common() if letter not in base})
    letters.saves = {letter: len(letter.encode()) - 1 for letter in letters.counts}
    return letters


def units(tokens: list[str], spelling: ByteLevel) -> list[tuple[str, ...]]:
    """A word's base tokens in the smallest groups that begin and end between characters."""
    groups: list[tuple[str, ...]] = []
    begin = 0
    for n, _ in enumerate(tokens):
        ends_here = n + 1 == len(tokens) or spelling.bytes(tokens[n + 1][0])[0] & 0xC0 != 0x80
        if ends_here:
            groups.append(tuple(tokens[begin : n + 1]))
            begin = n + 1
    return groups


def unit_words(state: dict, table: WordTable):
    """Yields (units, count) for each word of a byte-level base's table."""
    model, spelling = model_of(state), table.segmentation.spelling
    for words, counts in table.batches():
        for encoding, count in zip(
            model.encode_batch_fast(words, add_special_tokens=False), counts, strict=True
        ):
            yield units(encoding.tokens, spelling), count


def _of_bytes(state: dict, table: WordTable) -> Letters:
    base = state["model"]["vocab"]
    ways: Counter[tuple[str, ...]] = Counter()
    for groups, count in unit_words(state, table):
        for group in groups:
            if len(group) > 1:
                ways[group] += count
    letters = Letters()
    for group, count in sorted(ways.items(), key=lambda entry: (-entry[1], entry[0])):
        letter = "".join(group)
        if letter in base or not table.segmentation.is_span(letter):
            continue
        letters.counts[letter] += count
        if letter not in letters.saves:
            letters.saves[letter] = len(group) - 1
            beginnings = ("".join(group[:n]) for n in range(2, len(group)))
            letters.fragments[letter] = [each for each in beginnings if each not in base]
    letters.counts = Counter(dict(letters.counts.most_common()))
    return letters


def sharing(fragments: list[str], segmentation) -> list[str]:
    """Characters outside the scripts that begin with a fragment's bytes, and so take other tokens than before."""
    if not fragments:
        return []
    prefixes = tuple(segmentation.spelling.bytes(fragment).lstrip(b" ") for fragment in fragments)
    table = segmentation.letters()
    return [
        character
        for character in map(chr, (*range(0x80, 0xD800), *range(0xE000, sys.maxunicode + 1)))
        if not table[ord(character)]
        and unicodedata.category(character) != "Cn"
        and character.encode().startswith(prefixes)
    ]
