"""Which documents are good enough: language and script, length, repetition, stopwords, pages of fragments.

Each filter is a datatrove `BaseFilter`, and datatrove's own are used where it has one: repetition is its
`GopherRepetitionFilter`. Perplexity has a module of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter

from eeve_axolotl.corpus.kernels import cleaning, repetition, stopwords
from eeve_axolotl.corpus.kernels.characters import AROUND_WORDS, classes, letters, points, small
from eeve_axolotl.corpus.kernels.passages import is_special
from eeve_axolotl.corpus.text import WORDS


def script_share(text: str, scripts: tuple[str, ...]) -> float:
    """Share of the letters of `text` that belong to one of the Unicode `scripts`; 0 without letters."""
    all_of_them, of_scripts = cleaning.letters(points(text), letters(tuple(scripts)))
    return of_scripts / all_of_them if all_of_them else 0.0


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

    def __init__(self, words: frozenset[str], endings: tuple[str, ...], ratio: float):
        super().__init__()
        self.stopwords, self.ratio = frozenset(words), ratio
        self.endings = tuple(sorted(set(endings)))
        self._wanted = stopwords.wanted(self.stopwords, self.endings)

    def share(self, text: str) -> float:
        """Share of the words of `text` that are stopwords; 0 without words."""
        characters = points(text)
        if is_special(characters, small()):
            words, hits = self._count(text)
        else:
            words, hits = stopwords.count(characters, classes(), small(), *self._wanted)
        return hits / words if words else 0.0

    def _count(self, text: str) -> tuple[int, int]:
        """The same as `kernels.stopwords.count`, for any text."""
        stripped = (word.strip(AROUND_WORDS).lower() for word in WORDS.word_tokenize(text))
        words = [word for word in stripped if word]
        return len(words), sum(word in self.stopwords or word.endswith(self.endings) for word in words)

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
        lines, short, unfinished = cleaning.fragments(points(doc.text), classes(), self.short)
        if lines < self.lines:
            return True
        if short / lines > self.short_lines and unfinished / lines > self.unfinished:
            return False, "short lines that end no sentence"
        return True


class RepetitionFilter(GopherRepetitionFilter):
    """datatrove's n-gram, line and paragraph repetition rules (Gopher, table A1), on blank-separated words, compiled.

    Two things differ. A text of fewer than `short` words is spared the "most frequent n-gram" rules: there an
    n-gram that occurs once can be more than their share of the text. And a quick look first tells whether
    anything repeats enough for a rule of n-grams to apply; only then are these rules themselves computed.
    """

    name = "repetition"

    def __init__(self, short: int = 50):
        super().__init__(language=WORDS)
        self.short = short

        def arrays(rules: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
            n, shares = zip(*rules, strict=True)
            return np.array(shares, np.float64), np.array(n, np.int64)

        self._shares = repetition.Shares(
            self.dup_para_frac,
            self.dup_para_char_frac,
            self.dup_line_frac,
            self.dup_line_char_frac,
            *arrays(self.top_n_grams),
            *arrays(self.dup_n_grams),
        )

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Whether `doc` is kept, with the reason if not, in datatrove's words."""
        if not doc.text:
            return False, "empty"
        rule = repetition.objection(points(doc.text), classes(), self.short, *self._shares)
        return (False, _rule(rule)) if rule else True


def _rule(number: int) -> str:
    """Datatrove's name of a rule of `repetition.objection`."""
    if number > repetition.DUPLICATED:
        return f"duplicated_{number - repetition.DUPLICATED}_n_grams"
    if number > repetition.TOP:
        return f"top_{number - repetition.TOP}_gram"
    return {
        repetition.PARAGRAPHS: "dup_para_frac",
        repetition.PARAGRAPH_CHARACTERS: "dup_para_char_frac",
        repetition.LINES: "dup_line_frac",
        repetition.LINE_CHARACTERS: "dup_line_char_frac",
    }[number]
