"""The rounds of a selection (card, steps 4 to 7): count, drop, add, until neither helps."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer.candidate_counts import CandidateCounter, CandidateCounts, Mask, Numbers
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.letters import Letters
from eeve_axolotl.tokenizer.rules import Candidate, Selection, SelectionRules

LOG = logger("tokenizer")
_FEW = 32  # tokens that are dropped in one round
# A letter counts for so many: text that is not in the corpus has words it lacks, spelled in its letters.
_LETTER = 2
_GAIN = 1e-4  # the share of all tokens that an exchange must save to be one


class Search:
    """The rounds: drop what is too rare or too much, add what would save more, until neither changes anything.

    A choice of candidates is a mask: bool (candidates,).
    """

    def __init__(
        self,
        counter: CandidateCounter,
        table: WordTable,
        rules: SelectionRules,
        letters: Letters,
        kept: Collection[str],
        refused: Mapping[str, str],
    ):
        """
        Args:
            counter: the candidates.
            letters: which of them are letters, and what these save.
            kept: never dropped.
            refused: never chosen, with the reason.
        """
        self.counter, self.table, self.rules = counter, table, rules
        self.budget = rules.budget()
        self.min_count = max(rules.min_count, 1)
        tokens = counter.candidates
        self.reasons = dict(refused)
        self.open = ~counter.mask(refused)
        self.kept = counter.mask(kept)
        self.letter = counter.mask(letters.counts)
        # What a letter saves: it would fall to its bytes.
        self.letter_worth = np.array(
            [_LETTER * letters.counts[token] * letters.saves.get(token, 0) for token in tokens],
            dtype=np.int64,
        )
        self.letter_weight = (self.letter_worth * table.scale).astype(np.int64)
        self.rounds: list[dict] = []

    def run(self) -> Selection:
        """Go through the rounds to their end.

        Raises EEVEError if nothing is frequent enough, or if that takes more than `max_rounds`.
        """
        everything = self._count(np.ones_like(self.open))
        chosen = self.open.copy()
        settled: tuple[Mask, CandidateCounts] | None = None
        at_once, added = len(chosen), 0
        offered = np.array([], dtype=np.int64)
        vain = np.zeros_like(chosen)  # alone, they did not help to fill the budget
        while True:
            if len(self.rounds) == self.rules.max_rounds:
                raise EEVEError(
                    f"the selection did not settle in {self.rules.max_rounds} rounds; raise max_rounds"
                )
            counted = self._count(chosen)
            dropped = self._drop(chosen, counted)
            self._log(chosen, counted, dropped, added)
            added = 0
            if len(dropped):
                chosen[dropped] = False
                continue
            if not chosen.any():
                raise EEVEError(
                    f"no new token occurs {self.min_count:,} times in the corpus; lower min_count (or min_count_per_gb)"
                )
            if settled is None or self._better(chosen, counted.cost, *settled):
                settled = (chosen.copy(), counted)
            else:  # what was added saved nothing: back, and less of it at once
                chosen = settled[0].copy()
                if at_once == 1 and vain.sum() < _FEW and self._room(chosen):
                    vain[offered] = True
                else:
                    at_once //= 4
            offered = self._offer(chosen, settled[1], vain)[:at_once]
            if not len(offered):
                return self._selection(*settled, everything)
            at_once = len(offered)
            chosen[offered] = True
            added = len(offered)

    def _better(self, chosen: Mask, cost: int, before: Mask, counted: CandidateCounts) -> bool:
        """Whether an exchange saves enough; one that only fills the budget need not save more than a token."""
        enough = 0 if chosen.sum() > before.sum() else _GAIN * counted.cost
        return cost < counted.cost - enough

    def _count(self, chosen: Mask) -> CandidateCounts:
        counted = self.counter.count(self.table, chosen, self.rules.threads)
        if self.table.weighed is None:
            return counted
        return counted.weighed(self.counter.count(self.table.weighed, chosen, self.rules.threads))

    def _worth(self, counted: CandidateCounts) -> Numbers:
        """How many more tokens the corpus would take without each candidate, as its words weigh: int64 (candidates,).

        A letter falls to bytes, a word to two parts. What can only be made of it falls too.
        """
        return np.where(self.letter, np.maximum(self.letter_weight, counted.worth), counted.worth)

    def _drop(self, chosen: Mask, counted: CandidateCounts) -> Numbers:
        """The candidates to drop: those too rare, then those over the budget, the least useful first.

        Among equals the last is first. A letter that is frequent enough in the corpus is not too rare.
        It goes step by step, and all is counted anew each time: what a dropped token covered goes to its parts, which
        may then be frequent enough.
        """
        worth = self._worth(counted)
        can_be_rare = chosen & ~self.letter & ~self.kept
        rare = can_be_rare & (counted.counts < self.min_count)
        rare = self.counter.cheapest_relief(counted, rare, can_be_rare, self.min_count)
        left = int(chosen.sum() - rare.sum())
        excess = int(rare.sum()) + max(0, left - (left if self.budget is None else self.budget))
        if not excess and chosen.any():
            excess = (self.rules.first_id + left) % self.rules.multiple
        can = np.flatnonzero(chosen & ~self.kept)
        order = can[np.lexsort((-can, worth[can], ~rare[can]))]
        n = _step(excess)
        limit = worth[order[:n]][~rare[order[:n]]].max(initial=0)
        dropped = self.counter.droppable(chosen, order, counted.made, limit, n)
        for candidate in dropped:
            reason = "others save more"
            if rare[candidate]:
                count = counted.counts[candidate]
                too_rare = count < self.min_count
                reason = f"{count} < {self.min_count}" if too_rare else "leaves a part of it too rare"
            self.reasons[self.counter.candidates[candidate]] = f"round {len(self.rounds) + 1}: {reason}"
        return dropped

    def _offer(self, chosen: Mask, counted: CandidateCounts, vain: Mask) -> Numbers:
        """The candidates that fill what room there is, or save more than what they would replace; the best first."""
        gain = np.where(self.letter, self.letter_weight, counted.offers)
        occurs = np.where(self.letter, self.letter_worth, counted.possible)
        can = np.flatnonzero(self.open & ~chosen & ~vain & (occurs >= self.min_count))
        can = can[np.lexsort((can, -gain[can]))]
        if self.budget is None:
            return can
        room = self._room(chosen)
        worth = np.sort(self._worth(counted)[chosen & ~self.kept])
        n = min(len(can) - room, len(worth))
        if n <= 0:
            return can[:room]
        better = gain[can[room : room + n]] > worth[:n]
        return can[: room + (n if better.all() else int(better.argmin()))]

    def _room(self, chosen: Mask) -> int:
        """How many tokens the budget has left."""
        return 0 if self.budget is None else max(0, self.budget - int(chosen.sum()))

    def _log(self, chosen: Mask, counted: CandidateCounts, dropped: Numbers, added: int) -> None:
        """Note what a round did, and say it."""
        number, tokens = len(self.rounds) + 1, int(chosen.sum())
        self.rounds.append(
            {
                "round": number,
                "tokens": tokens,
                "added": added,
                "dropped": len(dropped),
                "total": counted.total,
            }
        )
        LOG.info(
            "round %d: %s tokens (%s added), %s dropped; the corpus's words take %s",
            number, f"{tokens:,}", f"{added:,}", f"{len(dropped):,}", f"{counted.total:,}",
        )  # fmt: skip

    def _selection(self, chosen: Mask, counted: CandidateCounts, everything: CandidateCounts) -> Selection:
        """The choice and its counts, and for what was not chosen the counts with all candidates in."""
        selection = Selection([], {}, self.rounds)
        for n, token in enumerate(self.counter.candidates):
            source = counted if chosen[n] else everything
            reason = None if chosen[n] else self.reasons.get(token, "saves nothing")
            if chosen[n]:
                selection.tokens.append(token)
                selection.counts[token] = int(counted.counts[n])
            selection.candidates.append(
                Candidate(token, int(source.counts[n]), int(source.documents[n]), reason, int(source.rows[n]))
            )
        return selection


def _step(excess: int) -> int:
    """How many of `excess` tokens to drop in one round: a third, or all of a few."""
    return excess if excess <= _FEW else -(-excess // 3)
