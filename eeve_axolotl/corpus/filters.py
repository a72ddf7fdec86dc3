"""Which documents are good enough: language and script, length, repetition, stopwords, pages of fragments.

Each filter is a datatrove `BaseFilter`, and datatrove's own are used where it has one: repetition is its
`GopherRepetitionFilter`. Perplexity has a module of its own.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import regex
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates
from datatrove.utils.text import TERMINAL_PUNCTUATION

from eeve_axolotl.corpus.text import WORDS, n_gram_hashes, word_hashes


@functools.cache
def _letters_of(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("[" + "".join(rf"\p{{Script={script}}}" for script in scripts) + "]")


@functools.lru_cache(maxsize=65536)
def _is_letter(character: str, scripts: tuple[str, ...]) -> tuple[bool, bool]:
    """Whether `character` is a letter, and whether it is one of `scripts`."""
    letter = character.isalpha()
    return letter, letter and _letters_of(scripts).match(character) is not None


def script_share(text: str, scripts: tuple[str, ...]) -> float:
    """Share of the letters of `text` that belong to one of the Unicode `scripts`; 0 without letters."""
    letters = of_scripts = 0
    for character, times in Counter(text).items():
        letter, of_script = _is_letter(character, scripts)
        letters += times * letter
        of_scripts += times * of_script
    return of_scripts / letters if letters else 0.0


class ScriptFilter(BaseFilter):
    """Keep documents of which at least `share` of the letters belong to `scripts`."""

    name = "language"

    def __init__(self, scripts: tuple[str, ...], share: float):
        super().__init__()
        self.scripts, self.share = tuple(scripts), share

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Whether `doc` is kept, with the reason if not."""
        return script_share(doc.text, self.scripts) >= self.share or (False, "few letters of its script")


class LengthFilter(BaseFilter):
    """Keep documents of at least `characters` characters."""

    name = "length"

    def __init__(self, characters: int):
        super().__init__()
        self.characters = characters

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Whether `doc` is kept, with the reason if not."""
        return len(doc.text) >= self.characters or (False, "too short")


class StopwordFilter(BaseFilter):
    """Keep documents in which at least `ratio` of the words are stopwords, or end like one.

    Running sentences of a language are full of function words; menus, keyword lists and text of another
    language in the same script are not.
    """

    name = "stopwords"

    def __init__(self, stopwords: frozenset[str], endings: tuple[str, ...], ratio: float):
        super().__init__()
        self.stopwords, self.ratio = frozenset(stopwords), ratio
        self.endings = tuple(sorted(set(endings)))

    def share(self, text: str) -> float:
        """Share of the words of `text` that are stopwords; 0 without words."""
        words = [word.strip(".,!?;:\"'()[]…·~").lower() for word in WORDS.word_tokenize(text)]
        words = [word for word in words if word]
        endings = self.endings
        hits = sum(word in self.stopwords or (bool(endings) and word.endswith(endings)) for word in words)
        return hits / len(words) if words else 0.0

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Whether `doc` is kept, with the reason if not."""
        return self.share(doc.text) >= self.ratio or (False, "few stopwords")


class FragmentFilter(BaseFilter):
    """Drop pages that are mostly short lines which end no sentence: menus, link lists, cookie banners.

    The two line rules of FineWeb (datatrove's FineWebQualityFilter), taken together rather than each
    alone: informal prose often leaves out full stops, and verse has short lines.
    """

    name = "fragments"

    def __init__(self, short_lines: float, short: int = 30, unfinished: float = 0.88, lines: int = 5):
        super().__init__()
        self.short_lines, self.short, self.unfinished, self.lines = short_lines, short, unfinished, lines

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Whether `doc` is kept, with the reason if not."""
        lines = [line.strip() for line in doc.text.split("\n")]
        lines = [line for line in lines if line]
        if len(lines) < self.lines:
            return True
        short = sum(len(line) <= self.short for line in lines) / len(lines)
        unfinished = sum(line[-1] not in TERMINAL_PUNCTUATION for line in lines) / len(lines)
        if short > self.short_lines and unfinished > self.unfinished:
            return False, "short lines that end no sentence"
        return True


class RepetitionFilter(GopherRepetitionFilter):
    """datatrove's n-gram, line and paragraph repetition rules (Gopher, table A1), on blank-separated words.

    Two things differ. A text of fewer than `short` words is spared the "most frequent n-gram" rules: there an
    n-gram that occurs once can be more than their share of the text. And a quick look first tells whether
    anything repeats enough for a rule to apply; only then are the rules themselves computed, which are slow.
    """

    name = "repetition"

    def __init__(self, short: int = 50):
        super().__init__(language=WORDS)
        self.short = short
        self._all_top_n_grams: Sequence[tuple[int, float]] = self.top_n_grams

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Whether `doc` is kept, with the reason if not."""
        words = WORDS.word_tokenize(doc.text)
        self.top_n_grams = self._all_top_n_grams if len(words) >= self.short else ()
        if not self._may_repeat(doc.text, words):
            return True
        answer: bool | tuple[bool, str] = super().filter(doc)
        return answer

    def _may_repeat(self, text: str, words: list[str]) -> bool:
        """False only if no rule can apply, from upper bounds on what the rules measure."""
        if not words:
            return True
        for parts, share, character_share in (
            (self.paragraph_exp.split(text.strip()), self.dup_para_frac, self.dup_para_char_frac),
            (self._line_splitter.split(text), self.dup_line_frac, self.dup_line_char_frac),
        ):
            repeated, characters = find_duplicates(parts)
            if repeated > share * len(parts) or characters > character_share * len(text):
                return True
        hashes = word_hashes(words)
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        for n, share in self.top_n_grams:
            if len(words) < n:
                continue
            _, first, times = np.unique(n_gram_hashes(hashes, n), return_index=True, return_counts=True)
            # datatrove joins the words of these n-grams by blanks.
            size = np.convolve(lengths, np.ones(n, np.int64), "valid")[first] + n - 1
            if (size * times).max() > share * len(text):
                return True
        shortest = min(n for n, _ in self.dup_n_grams)
        if len(words) <= shortest:
            return False
        n_grams = n_gram_hashes(hashes, shortest)
        _, inverse, times = np.unique(n_grams, return_inverse=True, return_counts=True)
        repeated = np.flatnonzero(times[inverse] > 1)
        # A repeated longer n-gram lies within words that a repeated shortest one covers.
        covered = np.zeros(len(words), bool)
        for offset in range(shortest):
            covered[repeated + offset] = True
        return bool(lengths[covered].sum() > min(share for _, share in self.dup_n_grams) * len(text))
