"""Counting tokens for one choice of candidates after another, compiled.

The selection counts what the target tokenizer produces, once for each change of its vocabulary. Here the
merges of all candidates lie in one table, and a choice is a mask over it: no tokenizer is built anew, and
a word is segmented without an object of Python. What it counts is what `tokenizers` counts (select.tokens_of
is the same by that library; tests and each build compare the two).
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow
from numba import njit
from pyarrow import compute

from eeve_axolotl.tokenizer.base import splits
from eeve_axolotl.tokenizer.counting import WordTable

_NEVER = np.iinfo(np.int32).max
_FALLBACK = -8  # -8 - n stands for a character outside the vocabulary, of n bytes
_BATCH = 1 << 18  # words at a time


@dataclass
class Counted:
    """What a corpus's words are segmented into.

    counts: for each candidate that was chosen, how often it occurs.
    documents: the same in documents, at most (one with two words that have the token counts twice).
    worth: the same, and how often other candidates were made with it that have no other merge left.
    made: how often it was made, be it to make others.
    merged: how often each merge was made.
    offers: for each candidate that was not, how often its two halves stand side by side now.
    total: tokens altogether. fallback: those of them that are single bytes.
    rows: for each candidate the row of the most frequent word that has it, -1 for none.
    """

    counts: np.ndarray
    documents: np.ndarray
    worth: np.ndarray
    made: np.ndarray
    merged: np.ndarray
    offers: np.ndarray
    rows: np.ndarray
    total: int
    fallback: int


class Segmenter:
    """Segments a table's words with a base tokenizer and any choice of candidate tokens."""

    def __init__(self, state: dict, candidates: list[str]):
        """
        Args:
            state: the base tokenizer's JSON (a BPE).
            candidates: tokens that may be chosen, in the order of their merges.
        """
        base = state["model"]["vocab"]
        self.candidates = candidates
        self.first = max(base.values()) + 1
        ids = {**base, **{token: self.first + n for n, token in enumerate(candidates)}}
        pairs: dict[tuple[int, int], tuple[int, int]] = {}
        for merge in state["model"]["merges"]:
            left, right = merge if isinstance(merge, list) else merge.split(" ")
            pairs[ids[left], ids[right]] = (len(pairs), ids[left + right])
        for token in candidates:
            for left, right in splits(token, ids):
                pairs[ids[left], ids[right]] = (len(pairs), ids[token])
        self._characters = np.full(0x110000, -1, dtype=np.int32)
        for token, number in ids.items():
            if len(token) == 1:
                self._characters[ord(token)] = number
        #: Tokens that a word takes whole before any merge (Llama-3's `ignore_merges`).
        self._whole = list(ids.items()) if state["model"].get("ignore_merges") else []
        self._keys, self._values = _table(pairs)
        self._left, self._right = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
        self._made = np.array([token for _, token in pairs.values()], dtype=np.int64)
        halves = np.concatenate([self._left, self._right])  # the merges of each token, as slices of `_uses`
        self._uses = np.argsort(halves, kind="stable") % max(1, len(self._made))
        self._begins = np.searchsorted(np.sort(halves), np.arange(self.first + len(candidates) + 1))

    def count(self, table: WordTable, chosen: np.ndarray, threads: int = 1) -> Counted:
        """Segment each word of `table` once.

        Args:
            chosen: bool for each candidate. Memory is bounded by a batch of the table.
            threads: how many share a batch.
        """
        active = np.concatenate([np.ones(self.first, dtype=np.bool_), chosen])
        sums = np.zeros((threads, 3, len(active)), dtype=np.int64)  # counts, documents, offers
        most = np.full((threads, 2, len(active)), -1, dtype=np.int64)  # count, row
        merged = np.zeros((threads, len(self._made)), dtype=np.int64)
        fallback = np.zeros(threads, dtype=np.int64)
        row = 0

        whole = [(token, number) for token, number in self._whole if active[number]]
        whole_tokens = pyarrow.array([token for token, _ in whole], pyarrow.string())
        whole_ids = np.array([number for _, number in whole] + [-1], dtype=np.int32)  # the last for none

        def one(n: int, batch, row: int) -> None:
            text, ends = _strings(batch["word"])
            found = np.empty(0, dtype=np.int32)
            if whole:
                rows = compute.index_in(batch["word"], whole_tokens).fill_null(-1).to_numpy()
                found = whole_ids[rows]
            size = int(np.diff(ends).max(initial=0)) + 1
            fallback[n] += _segment(
                text, ends, found, batch["count"].to_numpy(), batch["documents"].to_numpy(), row, self._characters,
                self._keys, self._values, active, sums[n], merged[n], most[n], np.empty((2, size), dtype=np.int32),
            )  # fmt: skip

        with ThreadPoolExecutor(threads) as pool:
            for batch in table.record_batches(_BATCH):
                share = -(-batch.num_rows // threads)
                parts = range(0, batch.num_rows, share)
                slices, rows = [batch.slice(at, share) for at in parts], [row + at for at in parts]
                list(pool.map(one, range(len(parts)), slices, rows))
                row += batch.num_rows
        counts, documents, offers = sums.sum(axis=0)
        first = np.where(most[:, 0] == most[:, 0].max(axis=0), most[:, 1], np.iinfo(np.int64).max)
        best = first.min(axis=0)  # the same for any number of threads
        new = slice(self.first, None)
        spent = int(fallback.sum())
        merged = merged.sum(axis=0)
        only = (merged > 0) & (self._ways(active)[self._made] == 1)
        worth = counts.copy()
        for half in (self._left, self._right):
            np.add.at(worth, half[only], merged[only])
        made = np.zeros_like(counts)
        np.add.at(made, self._made, merged)
        return Counted(
            counts[new], documents[new], worth[new], made[new], merged, offers[new], best[new],
            int(counts.sum()) + spent, spent,
        )  # fmt: skip

    def _ways(self, active: np.ndarray) -> np.ndarray:
        """For each token how many merges make it."""
        possible = active[self._left] & active[self._right] & active[self._made]
        return np.bincount(self._made[possible], minlength=len(active))

    def cheapest_relief(self, counted: Counted, rare: np.ndarray, can: np.ndarray, least: int) -> np.ndarray:
        """What to drop so that no candidate of `rare` is left with less than `least`: a mask.

        It is the rare one itself, or, where that costs more, one that is made with it often enough: then
        the rare one stands for itself in those places. `can` says which may be dropped.
        """
        relief = np.zeros_like(rare)
        for n in np.flatnonzero(rare):
            best, cost = n, counted.worth[n]
            for merge in self._uses[self._begins[self.first + n] : self._begins[self.first + n + 1]]:
                user = self._made[merge] - self.first
                enough = counted.counts[n] + counted.merged[merge] >= least
                if enough and can[user] and counted.worth[user] < cost:
                    best, cost = user, counted.worth[user]
            relief[best] = True
        return relief

    def droppable(
        self, chosen: np.ndarray, order: np.ndarray, made: np.ndarray, limit: int, n: int
    ) -> np.ndarray:
        """The first `n` of the candidates `order` that can be dropped together.

        One is passed over where those before it leave it as the last way to make what occurs more than
        `limit` times: two tokens that stand in for each other are not both dropped at once.
        """
        active = np.concatenate([np.ones(self.first, dtype=np.bool_), chosen])
        ways = self._ways(active)
        taken = np.zeros(len(order), dtype=np.bool_)
        made = np.concatenate([np.zeros(self.first, dtype=np.int64), made])
        _take(
            order + self.first, n, limit, made, active, ways, ways == 1, self._left, self._right, self._made,
            self._uses, self._begins, taken,
        )  # fmt: skip
        return order[taken]

    def mask(self, tokens: Iterable[str]) -> np.ndarray:
        """`tokens` as a choice."""
        wanted = set(tokens)
        return np.array([token in wanted for token in self.candidates], dtype=np.bool_)


def _strings(column) -> tuple[np.ndarray, np.ndarray]:
    """An Arrow column of strings as bytes and where each string ends (one more than strings), no copy."""
    _, ends, text = column.buffers()
    ends = np.frombuffer(ends, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(text, dtype=np.uint8), ends


def _table(pairs: dict[tuple[int, int], tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """A hash table: keys (left << 32 | right, or -1) and values (rank, token)."""
    size = 1 << (4 * len(pairs) + 4).bit_length()
    keys = np.full(size, -1, dtype=np.int64)
    values = np.zeros((size, 2), dtype=np.int32)
    if pairs:
        flat = np.array([left << 32 | right for left, right in pairs], dtype=np.int64)
        _fill(keys, values, flat, np.array(list(pairs.values()), dtype=np.int32))
    return keys, values


@njit(cache=True)
def _fill(keys, values, pairs, what):
    for n in range(len(pairs)):
        slot = _slot(pairs[n], len(keys))
        while keys[slot] >= 0:
            slot = (slot + 1) & (len(keys) - 1)
        keys[slot] = pairs[n]
        values[slot] = what[n]


@njit(inline="always")
def _slot(key, size):
    value = key * np.int64(-7046029254386353131)
    return (value ^ value >> 29) & (size - 1)


@njit(nogil=True, cache=True)
def _find(left, right, keys):
    """Where the merge of two tokens is in the table, -1 if there is none."""
    if left < 0 or right < 0:
        return -1
    key = np.int64(left) << 32 | np.int64(right)
    slot = _slot(key, len(keys))
    while keys[slot] != key:
        if keys[slot] < 0:
            return -1
        slot = (slot + 1) & (len(keys) - 1)
    return slot


@njit(nogil=True, cache=True)
def _rank(left, right, keys, values, active):
    slot = _find(left, right, keys)
    return values[slot, 0] if slot >= 0 and active[values[slot, 1]] else _NEVER


@njit(nogil=True, cache=True)
def _segment(
    text, ends, whole, counts, documents, row, characters, keys, values, active, sums, merged, most, scratch
):
    """Add one batch's tokens to `sums`, its merges to `merged`; returns how many tokens are bytes."""
    tokens, ranks = scratch[0], scratch[1]  # the word's tokens, the rank of each one's merge with the next
    fallback = 0
    for word in range(len(counts)):
        n = 0
        i = ends[word]
        if len(whole) and whole[word] >= 0:
            tokens[0] = whole[word]
            n = 1
            i = ends[word + 1]
        while i < ends[word + 1]:
            lead = np.int64(text[i])
            length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            code = lead if length == 1 else lead & (0x7F >> length)
            for k in range(1, length):
                code = code << 6 | (text[i + k] & 0x3F)
            i += length
            token = characters[code]
            if token < 0 or not active[token]:
                if token >= 0:
                    sums[2, token] += counts[word]
                token = _FALLBACK - length
            tokens[n] = token
            n += 1
        for k in range(n - 1):
            ranks[k] = _rank(tokens[k], tokens[k + 1], keys, values, active)
        while n > 1:
            at, lowest = 0, _NEVER
            for k in range(n - 1):
                if ranks[k] < lowest:
                    at, lowest = k, ranks[k]
            if lowest == _NEVER:
                break
            merged[lowest] += counts[word]
            tokens[at] = values[_find(tokens[at], tokens[at + 1], keys), 1]
            n -= 1
            for k in range(at + 1, n):
                tokens[k] = tokens[k + 1]
                ranks[k] = ranks[k + 1]
            if at:
                ranks[at - 1] = _rank(tokens[at - 1], tokens[at], keys, values, active)
            if at < n - 1:
                ranks[at] = _rank(tokens[at], tokens[at + 1], keys, values, active)
        for k in range(n):
            token = tokens[k]
            if token < 0:
                fallback += (_FALLBACK - token) * counts[word]
                continue
            sums[0, token] += counts[word]
            twice = False
            for before in range(k):
                twice = twice or tokens[before] == token
            if not twice:
                sums[1, token] += documents[word]
            if counts[word] > most[0, token]:
                most[0, token] = counts[word]
                most[1, token] = row + word
            if k + 1 < n:
                slot = _find(token, tokens[k + 1], keys)
                if slot >= 0:
                    sums[2, values[slot, 1]] += counts[word]
    return fallback


@njit(cache=True)
def _take(order, n, limit, made, active, ways, alone, left, right, makes, uses, begins, taken):
    number = 0
    for k in range(len(order)):
        if number == n:
            break
        token = order[k]
        cost = 0
        for at in range(begins[token], begins[token + 1]):
            merge = uses[at]
            target = makes[merge]
            if active[left[merge]] and active[right[merge]] and active[target]:
                if ways[target] == 1 and not alone[target]:
                    cost += made[target]
        if cost > limit:
            continue
        taken[k] = True
        number += 1
        for at in range(begins[token], begins[token + 1]):
            merge = uses[at]
            if active[left[merge]] and active[right[merge]] and active[makes[merge]]:
                ways[makes[merge]] -= 1
        active[token] = False
