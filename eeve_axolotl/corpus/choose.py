"""Which documents to train on: a natural draw, the paper's density rule, or cover for every new token.

The paper leaves out documents without many new tokens (3.1) and publishes no threshold; the card biases
the data "towards texts with many new tokens". A density threshold favours frequent tokens, which need no
help. `coverage` is this project's answer: choose documents so that every new token reaches a target
count, and draw the rest of the budget as it comes.

Coverage of a choice is the weighted mean over tokens of min(1, occurrences / goal). A token's goal is the
target, or all that the corpus holds if that is less; its weight is 1 / goal, so that a token which can be
had 20 times counts for more than one that can be had 200 times. That is a monotone submodular function,
so the greedy choice by gain per byte is close to the best that the budget can buy. Documents are taken in
passes with a falling threshold (Badanidiyuru and Vondrak 2014): each pass takes whatever gains at least
`1 - STEP` of the best. Bounds from earlier passes tell which blocks hold no such document, so most blocks
are not read again. In memory: a few numbers per document and per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eeve_axolotl.corpus.counts import Counts
from eeve_axolotl.corpus.kernels.gains import gains

STEP = 0.1  # how far below the best gain a document may be and still be taken
EIGHTHS = 8  # the natural part is found in eighths of the budget
TOLERANCE = 0.005  # share of the coverage that the natural part may cost where not every goal can be met


@dataclass
class Choice:
    """What was chosen from one group of documents.

    `chosen`: bool per document. `spent`: of the budget, in its unit. `natural_share`: share of what was spent
    that was drawn as it comes. `target`: occurrences asked for every new token; None if the rule has none.
    """

    chosen: np.ndarray
    spent: int
    natural_share: float
    target: int | None = None


def fill(order: np.ndarray, cost: np.ndarray, budget: float) -> np.ndarray:
    """The documents of `order`, first come first served, that fit in `budget`; a document that does not is skipped."""
    spent = np.cumsum(cost[order])
    fits = int(np.searchsorted(spent, budget, side="right"))
    taken = list(order[:fits])
    left = budget - (spent[fits - 1] if fits else 0)
    # The rest of the budget is less than one document: the next few that fit use it up.
    rest = order[fits:]
    for document in rest[cost[rest] <= left]:
        if cost[document] <= left:
            taken.append(document)
            left -= cost[document]
        if left <= 0.0005 * budget:
            break
    return np.array(taken, np.int64)


def density(counts: Counts) -> np.ndarray:
    """New tokens among all tokens of each document, 0 to 1: the paper's measure as we read it."""
    return np.divide(counts.new_tokens, np.maximum(counts.tokens, 1))


def natural(members: np.ndarray, keys: np.ndarray, cost: np.ndarray, budget: float) -> Choice:
    """Draw from the documents `members` (bool) in the order of their random `keys`."""
    order = _in_order(members, keys)
    taken = fill(order, cost, budget)
    return _choice(len(members), taken, cost, 1.0)


def densest(
    members: np.ndarray, keys: np.ndarray, cost: np.ndarray, budget: float, by: np.ndarray, least: float = 0.0
) -> Choice:
    """Take the documents with the largest `by` (see `density`) first, none below `least`; equals in the order of `keys`."""
    order = _in_order(members & (by >= least), keys)
    order = order[np.argsort(-by[order], kind="stable")]
    return _choice(len(members), fill(order, cost, budget), cost, 0.0)


def coverage(
    counts: Counts,
    members: np.ndarray,
    keys: np.ndarray,
    cost: np.ndarray,
    budget: float,
    new_tokens: int,
    target: int | None = None,
    already: np.ndarray | None = None,
    natural_share: float | None = None,
) -> Choice:
    """Choose from `members` so that every new token occurs `target` times, as far as the budget goes.

    Args:
        counts: the corpus.
        members: bool per document, which documents may be chosen.
        keys: uint64 per document, the random order of the natural draw.
        cost: bytes (or tokens) per document.
        budget: in the unit of `cost`.
        new_tokens: number of new tokens.
        target: occurrences that each new token should reach; None means what each would have in a natural
            draw of the budget if all new tokens were equally frequent.
        already: occurrences of each new token in what other groups contribute.
        natural_share: share of the budget drawn as it comes; None finds the largest with which every goal is
            still met or, where the budget cannot meet all, that costs no more than TOLERANCE of the coverage.
    """
    already = np.zeros(new_tokens) if already is None else already
    order = _in_order(members, keys)
    held = counts.total(members, new_tokens)
    if target is None:
        drawn = min(1.0, budget / max(cost[members].sum(), 1))
        target = max(1, round((already.sum() + held.sum() * drawn) / max(new_tokens, 1)))
    goal = np.minimum(target, already + held)
    problem = _Problem(counts, members, order, cost, budget, new_tokens, already, goal, target)
    if natural_share is not None:
        return problem.solve(natural_share)[0]
    best, most = problem.solve(0.0)
    enough = most if most > 1 - 1e-9 else (1 - TOLERANCE) * most
    low, high = 0, EIGHTHS + 1  # `low` eighths are good enough, `high` are too many
    while high - low > 1:
        middle = (low + high) // 2
        choice, reached = problem.solve(middle / EIGHTHS)
        if reached >= enough - 1e-9:
            best, low = choice, middle
        else:
            high = middle
    return best


def _in_order(members: np.ndarray, keys: np.ndarray) -> np.ndarray:
    order = np.flatnonzero(members)
    return order[np.argsort(keys[order], kind="stable")]


def _choice(size: int, taken: np.ndarray, cost: np.ndarray, natural_share: float) -> Choice:
    chosen = np.zeros(size, bool)
    chosen[taken] = True
    return Choice(chosen, int(cost[chosen].sum()), natural_share)


@dataclass
class _Problem:
    counts: Counts
    members: np.ndarray
    order: np.ndarray
    cost: np.ndarray
    budget: float
    new_tokens: int
    already: np.ndarray
    goal: np.ndarray
    target: int

    def solve(self, natural_share: float) -> tuple[Choice, float]:
        """The choice with the first `natural_share` of the budget drawn as it comes, and its coverage."""
        size = len(self.members)
        first = (
            fill(self.order, self.cost, natural_share * self.budget) if natural_share else np.array([], int)
        )
        chosen = np.zeros(size, bool)
        chosen[first] = True
        have = self.already + self.counts.total(chosen, self.new_tokens)
        left = self.budget - self.cost[chosen].sum()
        if left > 0:
            left -= self._cover(chosen, np.maximum(self.goal - have, 0), left)
        covering = chosen.copy()
        covering[first] = False
        rest = self.order[~chosen[self.order]]
        chosen[fill(rest, self.cost, left)] = True
        have = self.already + self.counts.total(chosen, self.new_tokens)
        asked = self.goal > 0
        goal, weight = self.goal[asked], 1 / self.goal[asked]
        reached = np.average(np.minimum(have[asked] / goal, 1), weights=weight) if asked.any() else 1.0
        spent = int(self.cost[chosen].sum())
        share = 1 - self.cost[covering].sum() / spent if spent else 1.0
        return Choice(chosen, spent, float(share), self.target), float(reached)

    def _cover(self, chosen: np.ndarray, missing: np.ndarray, budget: float) -> float:
        """Add documents to `chosen` until nothing is missing or the budget is used; return what was spent."""
        worth = np.divide(1.0, self.goal, where=self.goal > 0, out=np.zeros(self.new_tokens)) ** 2
        bound = np.where(self.members & ~chosen & (self.cost <= budget), np.inf, 0.0)
        left, threshold = budget, np.inf
        while missing.any():
            best = bound.max()
            if best <= 0:
                break
            threshold = (1 - STEP) * best if np.isfinite(best) else np.inf

            def may_hold_one(start: int, end: int, least: float = threshold) -> bool:
                return bool(bound[start:end].max() >= least)

            for block in self.counts.blocks(may_hold_one):
                here = slice(block.start, block.start + len(block))
                gain = gains(block.offsets, block.ids, block.counts, missing, worth) / self.cost[here]
                bound[here] = np.minimum(bound[here], gain)
                bound[here][self.cost[here] > left] = 0
                for document in np.flatnonzero(bound[here] >= threshold):
                    entries = slice(block.offsets[document], block.offsets[document + 1])
                    ids, times = block.ids[entries], block.counts[entries]
                    cost = self.cost[block.start + document]
                    now = (np.minimum(times, missing[ids]) * worth[ids]).sum() / cost if cost <= left else 0.0
                    bound[block.start + document] = now
                    if now >= threshold and now > 0:
                        chosen[block.start + document] = True
                        bound[block.start + document] = 0
                        missing[ids] = np.maximum(missing[ids] - times, 0)
                        left -= cost
        return budget - left
