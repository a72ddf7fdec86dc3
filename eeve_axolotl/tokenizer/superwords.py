"""Candidates that reach over the space between words (superwords; compare SuperBPE, arXiv 2503.13423).

They are learned after the words' tokens are chosen: tokens that often stand side by side with a space between them are
merged, then what was merged is merged again. Their merges come after all others, so words are cut as before, and then
joined. What is counted is exact: the corpus is read again and its words are joined wherever a superword could lie
(words/joined.py). Then superwords and words' tokens compete for the same places, and each must be frequent enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.meter import Meter
from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer import intermediate
from eeve_axolotl.tokenizer.base import extended_state, model_of
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.savings import sample
from eeve_axolotl.tokenizer.spelling import BOUNDARY
from eeve_axolotl.tokenizer.words import WordSplitter
from eeve_axolotl.tokenizer.words.joined import JoinedWordSplitter, Joint, apart, reason_against

LOG = logger("tokenizer")
_READ = 500_000_000  # characters that pairs are looked for in, at most
_PAIRS = 8  # pairs of tokens for each superword that is asked for
_PER_PAIR = 600  # bytes, about, while they are sorted
_CACHE = 100_000  # words of which the tokens are remembered


def check(base: str, state: dict, splitter: WordSplitter) -> None:
    """Raise EEVEError if no superwords can be made on a base."""
    reason = reason_against(state, splitter)
    if reason:
        raise EEVEError(
            f"superwords: no new token of {base} can reach over a space, since {reason}; remove `superwords`"
        )


class Superwords:
    """Finds superwords on top of a choice of words' tokens."""

    def __init__(self, state: dict, tokens: list[str], first_id: int, splitter: WordSplitter):
        """
        Args:
            state: the base tokenizer's JSON.
            tokens: the new tokens that are chosen so far, in the order of their ids, from `first_id`.
            splitter: what words are; `check` says nothing against it.
        """
        self._state, self._splitter = state, splitter
        self._words = _Tokens(model_of(extended_state(state, tokens, first_id)))
        self.pairs: frozenset[Joint] = frozenset()

    def look(self, shards: Sequence[Shard], most: int, share: float, memory_mb: int) -> JoinedWordSplitter:
        """Find the pairs of tokens that superwords may be made of.

        Beyond half a billion characters only the beginnings of files are read, and of pairs that do not fit into memory the
        rarest are forgotten: so which pairs are found is approximate. What becomes of them is counted exactly.

        Args:
            most: how many superwords are wanted.
            share: pairs that are seen less often are left out, for each byte of text.

        Returns what joins words wherever one of the pairs may lie.
        """
        room = memory_mb * 1_000_000 // _PER_PAIR
        found: Counter[Joint] = Counter()
        size = 0
        reader = JoinedWordSplitter(self._state, self._splitter.scripts)
        with Meter("looking for superwords", LOG) as meter:
            for text in meter.reading(sample(shards, _READ)):
                size += len(text.encode("utf-8", "surrogatepass"))
                for words in reader.stretches(text):
                    for one, other in pairwise(words):
                        pair = self._words.of(one)[-1], self._words.of(other)[0]
                        found[pair] += 1
                if len(found) > room:
                    found = Counter(dict(_ranked(found)[: room // 2]))
        whole, least = self._splitter.is_span, round(share * size)
        usable = (
            pair
            for pair, count in _ranked(found)
            if count >= least and whole(pair[0]) and whole(pair[1]) and pair[1].startswith(BOUNDARY)
        )
        self.pairs = frozenset(pair for pair, _ in zip(usable, range(_PAIRS * most), strict=False))
        return JoinedWordSplitter(self._state, self._splitter.scripts, self.pairs)

    def learn(self, table: WordTable, most: int, memory_mb: int | None = None) -> list[str]:
        """At most so many superwords, in the order of their merges.

        Args:
            table: joined words, as `look` says.
            memory_mb: learn from the most frequent, as many as a trainer keeps in this memory; None for all.
        """
        tokens = sorted({token for pair in self.pairs for token in pair})
        numbers = {token: n for n, token in enumerate(tokens)}
        least, words = table.fitting(memory_mb)
        return intermediate.merged(self._runs(table, least), numbers, len(tokens) + most, words)[:most]

    def _runs(self, table: WordTable, least: int) -> Iterator[tuple[list[str], int]]:
        """Tokens side by side of which each two are one of the pairs, in words that occur at least `least` times."""
        for joined, counts in table.frequent(least):
            for words, count in zip(map(apart, joined), counts, strict=True):
                run: list[str] = []
                for word in words:
                    tokens = self._words.of(word)
                    if run and (run[-1], tokens[0]) in self.pairs:
                        run.append(tokens[0])
                    else:
                        if len(run) > 1:
                            yield run, count
                        run = [tokens[0]]
                    if len(tokens) > 1:
                        if len(run) > 1:
                            yield run, count
                        run = [tokens[-1]]
                if len(run) > 1:
                    yield run, count


class _Tokens:
    """The tokens of words, remembered."""

    def __init__(self, model: Tokenizer):
        self._model = model
        self._known: dict[str, list[str]] = {}

    def of(self, word: str) -> list[str]:
        """A word's tokens; of more than two the first and the last."""
        tokens = self._known.get(word)
        if tokens is None:
            tokens = self._model.encode(word, add_special_tokens=False).tokens
            tokens = tokens if len(tokens) < 3 else [tokens[0], tokens[-1]]
            if len(self._known) >= _CACHE:
                self._known.clear()
            self._known[word] = tokens
        return tokens


def _ranked(pairs: Counter[Joint]) -> list[tuple[Joint, int]]:
    """The most frequent first, of equals those that sort before."""
    return sorted(pairs.items(), key=lambda entry: (-entry[1], entry[0]))
