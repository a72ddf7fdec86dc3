"""The single letters that a base lacks: what its vocabulary must have before words can be made of them.

A SentencePiece base spells such a letter in byte tokens that never merge: the letter itself becomes a token.
A byte-level base makes it of two to four tokens, and has tokens that end or begin inside a letter (`Ġ` with
the first byte, or a whole letter with the first byte of the next). So there a letter is the smallest run of
base tokens that begins and ends between letters. One of three tokens or more needs tokens for its beginnings,
the fragments, that its merges lead over.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field

from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer.base import model_of, tokens_of_words
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.spelling import BOUNDARY, ByteLevel
from eeve_axolotl.tokenizer.words.base import WordSplitter
from eeve_axolotl.tokenizer.words.byte_level import ByteLevelWordSplitter

LOG = logger("tokenizer")


@dataclass
class Letters:
    """Letters in the vocabulary's alphabet, the most frequent first.

    counts: how often the corpus has each.
    saves: how many tokens each would save every time.
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
    if isinstance(table.splitter, ByteLevelWordSplitter):
        return _of_bytes(state, table, table.splitter)
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
    for n in range(1, len(tokens) + 1):
        if n == len(tokens) or spelling.bytes(tokens[n][0])[0] & 0xC0 != 0x80:
            groups.append(tuple(tokens[begin:n]))
            begin = n
    return groups


def _of_bytes(state: dict, table: WordTable, splitter: ByteLevelWordSplitter) -> Letters:
    """The letters of a byte-level base that it does not have as one token, with the fragments that lead to them."""
    base = state["model"]["vocab"]
    ways: Counter[tuple[str, ...]] = Counter()
    for tokens, count in tokens_of_words(model_of(state), table.batches()):
        for group in units(tokens, splitter.spelling):
            if len(group) > 1:
                ways[group] += count
    letters = Letters()
    for group, count in sorted(ways.items(), key=lambda entry: (-entry[1], entry[0])):
        letter = "".join(group)
        if letter in base or not splitter.is_span(letter):
            continue
        letters.counts[letter] += count
        if letter not in letters.saves:
            letters.saves[letter] = len(group) - 1
            beginnings = ("".join(group[:n]) for n in range(2, len(group)))
            letters.fragments[letter] = [each for each in beginnings if each not in base]
    letters.counts = Counter(dict(letters.counts.most_common()))
    return letters


def unshared(letters: Letters, splitter: WordSplitter) -> Letters:
    """`letters` without those whose fragments begin characters of other scripts too: other text stays as it was."""
    if not isinstance(splitter, ByteLevelWordSplitter):
        return letters
    prefixes = {
        fragment: _last_bytes(fragment, splitter.spelling)
        for fragments in letters.fragments.values()
        for fragment in fragments
    }
    others = {
        prefix: any(unicodedata.category(chr(code)) != "Cn" for code in _strangers({prefix}, splitter))
        for prefix in set(prefixes.values())
    }
    refused = [
        letter
        for letter, fragments in letters.fragments.items()
        if any(others[prefixes[fragment]] for fragment in fragments)
    ]
    if refused:
        LOG.warning(
            "%d letters the base spells in bytes stay so: tokens for their first bytes would change how text "
            "in other scripts is tokenized too; share_fragments: true adds them (%s)",
            len(refused), " ".join(map(splitter.spelling.read, refused[:10])),
        )  # fmt: skip
    kept = [letter for letter in letters.counts if letter not in set(refused)]
    return Letters(
        Counter({letter: letters.counts[letter] for letter in kept}),
        {letter: letters.saves[letter] for letter in kept},
        {letter: letters.fragments[letter] for letter in kept if letter in letters.fragments},
    )


def sharing(fragments: list[str], splitter: WordSplitter) -> list[str]:
    """Characters outside the scripts that begin with a fragment's bytes, and so take other tokens than before.

    As ranges of code points (`U+0E3F`, `U+D7A4..U+D7AF`), those without a character in Unicode included.
    """
    if not isinstance(splitter, ByteLevelWordSplitter):
        return []
    prefixes = {_last_bytes(fragment, splitter.spelling) for fragment in fragments}
    shared = _strangers(prefixes, splitter)
    ranges: list[list[int]] = []
    for code in shared:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return [f"U+{a:04X}" if a == b else f"U+{a:04X}..U+{b:04X}" for a, b in ranges]


def _last_bytes(fragment: str, spelling: ByteLevel) -> bytes:
    """The first bytes of the letter that a fragment does not end; none if whole letters come before them."""
    raw = spelling.bytes(fragment).lstrip(b" ")
    return b"" if any(byte & 0xC0 != 0x80 for byte in raw[1:]) else raw


def _strangers(prefixes: set[bytes], splitter: WordSplitter) -> list[int]:
    """Code points outside the scripts whose UTF-8 begins with one of `prefixes`."""
    codes = {code for prefix in prefixes if prefix for code in _code_points(prefix)}
    return sorted(codes.difference(splitter.letters().tolist()))


def _code_points(prefix: bytes) -> range:
    """The code points whose UTF-8, of three or four bytes, begins with `prefix`."""
    length = 3 if prefix[0] < 0xF0 else 4
    first = prefix[0] & (0xFF >> (length + 1))
    for byte in prefix[1:]:
        first = first << 6 | byte & 0x3F
    free = 6 * (length - len(prefix))
    lowest = 0x800 if length == 3 else 0x10000
    return range(max(first << free, lowest), min((first + 1) << free, 0x110000))
