"""Counting tokens for one choice of candidates after another.

The selection counts what the target tokenizer produces, once for each change of its vocabulary. Here the
merges of all candidates lie in one table, and a choice is a mask over it: no tokenizer is built anew, and
a word is cut by compiled code (kernels/merges.py). What it counts is what the tokenizers library counts: tests and
each build compare it with token_counts.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import compute

from eeve_axolotl.tokenizer.base import splits
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.kernels import merges as kernels

_BATCH = 1 << 18  # words at a time

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class CandidateCounts:
    """What a corpus's words are cut into, for one choice of candidates.

    Arrays are int64 with one number for each candidate, chosen or not, but for `merged`.
    """

    counts: Numbers
    """How often the candidate occurs; 0 for one that was not chosen."""

    documents: Numbers
    """In how many documents it occurs, at most: one with two words that have the token counts twice."""

    worth: Numbers
    """How often it occurs, and how often others were made of it that have no other merge left."""

    made: Numbers
    """How often it was made, to stay or to be part of another."""

    merged: Numbers
    """(merges,): how often each merge was made."""

    offers: Numbers
    """For a candidate that was not chosen, how often its two halves stand side by side."""

    rows: Numbers
    """The row of the most frequent word that has it, -1 for none."""

    total: int
    """Tokens altogether, those of the base included."""

    fallback: int
    """Those of them that are single bytes."""

    cost: int
    """What the words' tokens weigh altogether: `total`, unless words weigh other than they occur."""

    possible: Numbers
    """How often a candidate that was not chosen would occur, at most."""

    def weighed(self, weights: CandidateCounts) -> CandidateCounts:
        """The same occurrences, with worth, offers and cost by what the words weigh."""
        return replace(
            self, worth=weights.worth, made=weights.made, offers=weights.offers, cost=weights.total
        )


class CandidateCounter:
    """Cuts a table's words with a base tokenizer and any choice of candidate tokens."""

    def __init__(self, state: dict, candidates: list[str]):
        """
        Args:
            state: the base tokenizer's JSON (a BPE).
            candidates: tokens that may be chosen, in the order of their merges, in the vocabulary's alphabet.
        """
        base = state["model"]["vocab"]
        self.candidates = candidates
        self.first = max(base.values()) + 1  # candidate n is token first + n
        self._tokens = self.first + len(candidates)
        ids = {**base, **{token: self.first + n for n, token in enumerate(candidates)}}
        pairs: dict[tuple[int, int], tuple[int, int]] = {}
        for merge in state["model"]["merges"]:
            left, right = merge if isinstance(merge, list) else merge.split(" ")
            pairs[ids[left], ids[right]] = (len(pairs), ids[left + right])
        for token in candidates:
            for left, right in splits(token, ids):
                pairs[ids[left], ids[right]] = (len(pairs), ids[token])
        characters = np.full(0x110000, -1, dtype=np.int32)
        for token, number in ids.items():
            if len(token) == 1:
                characters[ord(token)] = number
        self._vocabulary = kernels.vocabulary(characters, pairs)
        halves = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        makes = np.array([token for _, token in pairs.values()], dtype=np.int64)
        self._merges = kernels.merges(halves[:, 0].copy(), halves[:, 1].copy(), makes, self._tokens)
        #: Tokens that a word takes whole before any merge (Llama-3's `ignore_merges`).
        self._whole = list(ids.items()) if state["model"].get("ignore_merges") else []

    def count(self, table: WordTable, chosen: Mask, threads: int = 1) -> CandidateCounts:
        """Cut each word of `table` once. Memory is bounded by a batch of the table.

        Args:
            chosen: bool (candidates,).
            threads: how many share a batch.
        """
        active = self._active(chosen)
        for_tokens = np.zeros((3, threads, self._tokens), dtype=np.int64)
        of_words = np.full((2, threads, self._tokens), -1, dtype=np.int64)
        for_merges = np.zeros((threads, len(self._merges.makes)), dtype=np.int64)
        sums = [
            kernels.Sums(
                counts=for_tokens[0, n],
                documents=for_tokens[1, n],
                offers=for_tokens[2, n],
                most=of_words[0, n],
                row=of_words[1, n],
                merged=for_merges[n],
            )
            for n in range(threads)
        ]
        fallback = [0] * threads
        whole = self._whole_words(active)

        def one(n: int, batch: pyarrow.RecordBatch, row: int) -> None:
            words = _words(batch, row, whole)
            longest = int(np.diff(words.ends).max(initial=0)) + 1
            scratch = np.empty((2, longest), dtype=np.int32)
            fallback[n] += kernels.cut(words, self._vocabulary, active, sums[n], scratch)

        row = 0
        with ThreadPoolExecutor(threads) as pool:
            for batch in table.record_batches(_BATCH):
                share = -(-batch.num_rows // threads)
                parts = range(0, batch.num_rows, share)
                slices, rows = [batch.slice(at, share) for at in parts], [row + at for at in parts]
                list(pool.map(one, range(len(parts)), slices, rows))
                row += batch.num_rows
        most, rows_of_most = of_words
        # Of several words the first: the same for any number of threads.
        first = np.where(most == most.max(axis=0), rows_of_most, np.iinfo(np.int64).max).min(axis=0)
        return self._gathered(active, for_tokens.sum(axis=1), for_merges.sum(axis=0), first, sum(fallback))

    def _gathered(
        self, active: Mask, for_tokens: Numbers, merged: Numbers, rows: Numbers, fallback: int
    ) -> CandidateCounts:
        """The counts of candidates from those of all tokens: int64 (3, tokens), (merges,), (tokens,)."""
        counts, documents, offers = for_tokens
        only = (merged > 0) & (self._ways(active)[self._merges.makes] == 1)
        worth = counts.copy()
        for half in (self._merges.left, self._merges.right):
            np.add.at(worth, half[only], merged[only])
        made = np.zeros_like(counts)
        np.add.at(made, self._merges.makes, merged)
        new = slice(self.first, None)
        return CandidateCounts(
            counts=counts[new],
            documents=documents[new],
            worth=worth[new],
            made=made[new],
            merged=merged,
            offers=offers[new],
            rows=rows[new],
            total=int(counts.sum()) + fallback,
            fallback=fallback,
            cost=int(counts.sum()) + fallback,
            possible=offers[new],
        )

    def _active(self, chosen: Mask) -> Mask:
        """The tokens of the vocabulary, bool (tokens,): the base's and those chosen."""
        return np.concatenate([np.ones(self.first, dtype=np.bool_), chosen])

    def _whole_words(self, active: Mask) -> tuple[pyarrow.Array, NDArray[np.int32]] | None:
        """The active tokens that a word takes whole, and their ids with a -1 after them; None if there are none."""
        whole = [(token, number) for token, number in self._whole if active[number]]
        if not whole:
            return None
        tokens = pyarrow.array([token for token, _ in whole], pyarrow.string())
        return tokens, np.array([number for _, number in whole] + [-1], dtype=np.int32)

    def _ways(self, active: Mask) -> Numbers:
        """For each token how many merges make it: int64 (tokens,)."""
        left, right, makes = self._merges.left, self._merges.right, self._merges.makes
        possible = active[left] & active[right] & active[makes]
        return np.bincount(makes[possible], minlength=len(active))

    def cheapest_relief(self, counted: CandidateCounts, rare: Mask, can: Mask, least: int) -> Mask:
        """What to drop so that no candidate of `rare` is left with less than `least`.

        It is the rare one itself, or, where that costs more, one that is made of it often enough: then
        the rare one stands for itself in those places.

        Args:
            rare: bool (candidates,), those seen less often than `least`.
            can: bool (candidates,), those that may be dropped.

        Returns bool (candidates,).
        """
        relief = np.zeros_like(rare)
        begins = self._merges.begins
        for n in np.flatnonzero(rare):
            best, cost = n, counted.worth[n]
            for merge in self._merges.uses[begins[self.first + n] : begins[self.first + n + 1]]:
                user = self._merges.makes[merge] - self.first
                enough = counted.counts[n] + counted.merged[merge] >= least
                if enough and can[user] and counted.worth[user] < cost:
                    best, cost = user, counted.worth[user]
            relief[best] = True
        return relief

    def droppable(self, chosen: Mask, order: Numbers, made: Numbers, limit: int, n: int) -> Numbers:
        """The first `n` of the candidates `order` that can be dropped together.

        One is passed over where those before it leave it as the last way to make what occurs more than
        `limit` times: two tokens that stand in for each other are not both dropped at once.

        Args:
            chosen: bool (candidates,).
            order: int64, numbers of candidates, the first to drop first.
            made: int64 (candidates,), as `CandidateCounts` has it.

        Returns int64, at most `n` of `order`.
        """
        active = self._active(chosen)
        taken = np.zeros(len(order), dtype=np.bool_)
        made = np.concatenate([np.zeros(self.first, dtype=np.int64), made])
        kernels.take(order + self.first, n, limit, made, active, self._ways(active), self._merges, taken)
        return order[taken]

    def mask(self, tokens: Iterable[str]) -> Mask:
        """`tokens` as a choice: bool (candidates,)."""
        wanted = set(tokens)
        return np.array([token in wanted for token in self.candidates], dtype=np.bool_)


def _words(
    batch: pyarrow.RecordBatch, row: int, whole: tuple[pyarrow.Array, NDArray[np.int32]] | None
) -> kernels.Words:
    """A batch of the table, whose first row is `row`, without a copy of its text."""
    column = batch["word"]
    _, ends, text = column.buffers()
    found = np.empty(0, dtype=np.int32)
    if whole is not None:
        tokens, ids = whole
        found = ids[compute.index_in(column, tokens).fill_null(-1).to_numpy()]
    return kernels.Words(
        text=np.frombuffer(text, dtype=np.uint8),
        ends=np.frombuffer(ends, dtype=np.int32)[column.offset : column.offset + len(column) + 1],
        whole=found,
        counts=batch["count"].to_numpy(),
        documents=batch["documents"].to_numpy(),
        first_row=row,
    )
