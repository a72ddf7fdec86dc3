"""The order in which stages read a corpus: an endless row of sequences, and positions in it.

A pass reads every sample of the corpus once, in an order drawn from the seed and the number of the pass. The samples are
cut into sequences (packed, or one by one), and passes follow each other without a gap. A position counts sequences, so it
means the same whatever the micro batch, the accumulation, the number of processes or of data-loader workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numba import njit

from eeve_axolotl.errors import EEVEError


@dataclass(frozen=True)
class Cut:
    """How samples become sequences: one by one, or packed."""

    packed_to: int | None = None
    """Tokens that a packed sequence holds at most; None where every sample is a sequence."""
    group: int = 100_000
    """Samples that are packed among themselves (Axolotl's sample_packing_group_size)."""
    most: int = 200
    """Samples in a packed sequence at most (sample_packing_bin_size)."""
    in_turn: bool = False
    """Pack in the samples' order, and so less tightly (sample_packing_sequentially)."""
    shuffled: bool = True
    """Draw the order of a pass; False keeps the corpus's own (curriculum_sampling)."""
    by_length: int | None = None
    """Samples of a step, which are then about as long as each other (group_by_length); None where they are not."""


@dataclass(frozen=True)
class Position:
    """Where reading goes on: after `sequences` of a pass, with `passes` whole ones before it."""

    cut: Cut
    passes: int = 0
    sequences: int = 0
    of: int = 0
    """Sequences of this pass with this cut."""
    before: Position | None = None
    """Where in the same pass another cut ended: this one has the samples that it left."""

    @classmethod
    def read(cls, content: Mapping) -> Position:
        """The position that `asdict` made a mapping of."""
        before = content["before"] and cls.read(content["before"])
        return cls(**{**content, "cut": Cut(**content["cut"]), "before": before})


@dataclass(frozen=True)
class Part:
    """Which part of a text was read."""

    corpus: str
    """The text's identity."""
    seed: int
    start: Position
    end: Position

    @classmethod
    def read(cls, content: Mapping, where: str) -> Part:
        """The part that `as_mapping` made a mapping of.

        Args:
            where: what the error calls the place that `content` is from.

        Raises EEVEError if it is none.
        """
        try:
            start, end = Position.read(content["from"]), Position.read(content["to"])
            return cls(str(content["corpus"]), int(content["seed"]), start, end)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise EEVEError(f"{where} does not say which text was read") from None

    def as_mapping(self) -> dict[str, Any]:
        """The part for a JSON file; `read` reads it."""
        start, end = asdict(self.start), asdict(self.end)
        return {"corpus": self.corpus, "seed": self.seed, "from": start, "to": end}


@dataclass(frozen=True)
class Sequences:
    """What one cut made of a pass: sequence `i` has the samples from `starts[i]` to `starts[i + 1]`."""

    samples: np.ndarray  # (samples,) int64: indices into the corpus
    starts: np.ndarray  # (sequences + 1,) int64

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> list[int]:
        return self.samples[self.starts[number] : self.starts[number + 1]].tolist()


class Text:
    """A corpus in the order in which it is read.

    Args:
        lengths: tokens of each sample, (samples,).
        seed: what the order of each pass is drawn from.
        identity: tells this corpus from others (see `identity`).
    """

    def __init__(self, lengths: np.ndarray, seed: int, identity: str):
        if not len(lengths):
            raise EEVEError(
                "the corpus has no text to train on; give text that the config does not filter out"
            )
        self.lengths, self.seed, self.identity = np.asarray(lengths, np.int64), seed, identity
        self._kept: dict[Position, Sequences] = {}  # by the beginning of what was cut
        self._counts: dict[Position, int] = {}

    def beginning(self, cut: Cut, passes: int = 0) -> Position:
        """The position before the first sequence of a pass."""
        return self._counted(Position(cut, passes))

    def go_on(self, position: Position, cut: Cut) -> Position:
        """The same position where `cut` is its cut; else one that has what `position` left of its pass.

        Raises EEVEError where the pass is not cut as it was when the position was written.
        """
        if len(self.sequences(position)) != position.of:
            raise EEVEError(
                f"its pass had {position.of:,} sequences and is now cut into {len(self.sequences(position)):,}"
            )
        if cut == position.cut:
            return position
        if position.sequences == 0:
            return self._counted(Position(cut, position.passes, before=position.before))
        return self._counted(Position(cut, position.passes, before=position))

    def after(self, position: Position, count: int) -> Position:
        """The position when `count` more sequences are read; at the end of a pass, the beginning of the next."""
        while count >= position.of - position.sequences:
            count -= position.of - position.sequences
            position = self.beginning(position.cut, position.passes + 1)
        return replace(position, sequences=position.sequences + count)

    def read(self, position: Position) -> Iterator[list[int]]:
        """The sequences from `position` on, without an end, each as the indices of its samples."""
        while True:
            sequences = self.sequences(position)
            yield from map(sequences.__getitem__, range(position.sequences, len(sequences)))
            position = self.beginning(position.cut, position.passes + 1)

    def sequences(self, position: Position) -> Sequences:
        """What the position's cut made of the samples that it had of its pass."""
        key = replace(position, sequences=0, of=0)
        if key not in self._kept:
            self._kept = dict(list(self._kept.items())[-1:])  # a pass and the one before it: memory
            self._kept[key] = self._cut(position)
            self._counts[key] = len(self._kept[key])
        return self._kept[key]

    def _counted(self, position: Position) -> Position:
        key = replace(position, sequences=0, of=0)
        return replace(position, of=self._counts.get(key) or len(self.sequences(position)))

    def _cut(self, position: Position) -> Sequences:
        cut = position.cut
        if position.before is not None:
            left = self.sequences(position.before)
            samples = left.samples[left.starts[position.before.sequences] :]
        elif cut.shuffled:
            # RandomState: numpy promises that its numbers stay the same from version to version.
            seeds = [self.seed % 2**32, self.seed >> 32, position.passes]
            samples = np.random.RandomState(seeds).permutation(len(self.lengths))
        else:
            samples = np.arange(len(self.lengths))
        if cut.by_length is not None:
            samples = samples[self._by_length(samples, cut.by_length, position.passes)]
        if cut.packed_to is None:
            return Sequences(samples, np.arange(len(samples) + 1))
        return _pack(samples, self.lengths[samples], cut, cut.packed_to)

    def _by_length(self, samples: np.ndarray, step: int, passes: int) -> np.ndarray:
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        drawn = torch.Generator().manual_seed(self.seed + passes)
        return np.array(get_length_grouped_indices(self.lengths[samples].tolist(), step, generator=drawn))


def _pack(samples: np.ndarray, lengths: np.ndarray, cut: Cut, capacity: int) -> Sequences:
    """Pack into sequences of one length, of which a micro batch then is any number."""
    if cut.in_turn:
        places = _next_fit(lengths, capacity)
    else:
        places = _first_fit(lengths, capacity, cut.group, cut.most)
    starts = np.concatenate([[0], np.cumsum(np.bincount(places))])
    return Sequences(samples[np.argsort(places, kind="stable")], starts)


@njit
def _first_fit(lengths: np.ndarray, capacity: int, group: int, most: int) -> np.ndarray:
    """The sequence of each sample: the first of its group that has room, as Axolotl's multipack sampler packs.

    Args:
        lengths: tokens of each sample, (samples,) int64.
        capacity: tokens of a sequence; a longer sample has one to itself.
        group: samples that are packed among themselves.
        most: samples of a sequence at most.

    Returns (samples,) int64. Axolotl looks at one sequence after the other; here a tree of the largest room below each
    node finds the first in a logarithm of the steps.
    """
    places = np.empty(len(lengths), np.int64)
    leaves = 1
    while leaves < min(group, len(lengths)):
        leaves *= 2
    room = np.empty(2 * leaves, np.int64)
    filled = np.empty(leaves, np.int64)
    first = used = 0
    for number in range(len(lengths)):
        if number % group == 0:
            first += used
            used = 0
            room[:] = capacity
            filled[:] = 0
        size = min(max(lengths[number], 1), capacity)
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < size:
                node += 1
        leaf = node - leaves
        filled[leaf] += 1
        room[node] = 0 if filled[leaf] == most else room[node] - size
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
        used = max(used, leaf + 1)
        places[number] = first + leaf
    return places


@njit
def _next_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The sequence of each sample: the one before's, or else a new one. Arguments and result as of `_first_fit`."""
    places = np.empty(len(lengths), np.int64)
    place, room = -1, 0
    for number in range(len(lengths)):
        if place < 0 or lengths[number] > room:
            place, room = place + 1, capacity
        room -= lengths[number]
        places[number] = place
    return places


def identity(lengths: np.ndarray, some: Iterable[str]) -> str:
    """What tells a corpus from others: a hash of its samples' lengths and of `some` samples."""
    digest = hashlib.sha256(np.asarray(lengths, dtype="<i8").tobytes())
    for sample in some:
        digest.update(sample.encode())
    return digest.hexdigest()
