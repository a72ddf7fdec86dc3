"""Choose documents within the budget, group by group, and deal them out to the shards."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from eeve_axolotl.corpus import choose as rules
from eeve_axolotl.corpus.counts import Counts
from eeve_axolotl.corpus.plan import DRAW, SHUFFLE, random_order
from eeve_axolotl.corpus.settings import GroupSettings
from eeve_axolotl.corpus.steps.base import Step
from eeve_axolotl.corpus.store import Writer
from eeve_axolotl.corpus.token_counter import TokenCounter
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import write_json

TOKENS = pa.schema(
    [
        ("id", pa.int64()),
        ("token", pa.string()),
        ("in_corpus", pa.int64()),
        ("chosen", pa.int64()),
        ("target", pa.int64()),
        ("status", pa.string()),  # reached, short of budget, short of text
    ]
)


@dataclass
class Spent:
    """What one group of the mix gave, as the manifest tells it. Amounts are in the unit of the budget."""

    asked: float
    """Share of the budget that the mix asks for."""
    given: int
    documents: int
    bytes: int
    tokens: int
    new_tokens: int
    held: int
    """What the group has to choose from."""
    natural_share: float
    target: int | None
    rule: str
    share: float = 0.0
    """Share of all that was given; known when every group has been chosen from."""


class Choose(Step):
    """Choose documents within the budget, in the mix asked for, and give each its place in the output. One task."""

    name = "choice"

    def work(self, rank: int) -> None:
        """Write each piece's choice, the table of new tokens, and what was spent where."""
        plan, settings = self.plan, self.plan.settings
        counts = Counts(plan.files("counts"), settings.executor.memory_mb * 2**20)
        counter = plan.counter()
        cost = counts.tokens if settings.budget.tokens else counts.bytes
        held = {name: (counts.group == number) & ~counts.held_out for number, name in enumerate(settings.mix)}
        budget, most = self._budget(held, cost)
        draw = random_order(counts.key, settings.seed, DRAW)
        chosen, already = np.zeros(len(counts), bool), np.zeros(counter.new_tokens)
        spent: dict[str, Spent] = {}
        # Groups that nothing is asked of come first: what they contribute, the others need not.
        for name in sorted(settings.mix, key=lambda name: settings.mix[name].rule != "natural"):
            group = settings.mix[name]
            choice = self._choose(counts, group, held[name], draw, cost, group.share * budget, already)
            chosen |= choice.chosen
            already = already + counts.total(choice.chosen, counter.new_tokens)
            spent[name] = _spent(counts, group, choice, int(cost[held[name]].sum()))
        if not chosen.any():
            raise EEVEError(
                f"the budget of {budget:,.0f} {settings.budget.unit} is smaller than any document; raise `budget`"
            )
        total = sum(entry.given for entry in spent.values())
        for entry in spent.values():
            entry.share = entry.given / total
        in_corpus = counts.total(~counts.held_out, counter.new_tokens)
        self._write_tokens(counter, in_corpus, already, [entry.target for entry in spent.values()])
        self._write_places(counts, chosen)
        write_json(
            plan.folder(self.name) / "choice.json",
            {
                "budget": budget,
                "most": most,
                "unit": settings.budget.unit,
                "groups": {name: asdict(spent[name]) for name in settings.mix},
                "held_out": {
                    name: int(((counts.group == number) & counts.held_out).sum())
                    for number, name in enumerate(settings.mix)
                },
            },
        )

    def _budget(self, held: dict[str, np.ndarray], cost: np.ndarray) -> tuple[float, float]:
        """The budget in the unit of `cost`, and the most that the corpus can give in this mix."""
        mix, wanted = self.plan.settings.mix, self.plan.settings.budget
        gives = {name: float(cost[members].sum() / mix[name].share) for name, members in held.items()}
        scarce = min(gives, key=lambda name: gives[name])
        most = gives[scarce]
        if most == 0:
            raise EEVEError(f"no document of {scarce!r} is left after filtering; see its filters in `mix`")
        asked = wanted.tokens or wanted.bytes
        if asked is None:
            return (wanted.share or 1.0) * most, most
        if asked > most:
            raise EEVEError(
                f"the corpus holds {most:,.0f} {wanted.unit} in this mix, not the {asked:,} of `budget`: "
                f"{scarce!r} has {cost[held[scarce]].sum():,} for its share of {mix[scarce].share:g}; "
                "lower the budget or that share, or give more text"
            )
        return float(asked), most

    def _choose(
        self,
        counts: Counts,
        group: GroupSettings,
        members: np.ndarray,
        draw: np.ndarray,
        cost: np.ndarray,
        budget: float,
        already: np.ndarray,
    ) -> rules.Choice:
        """Choose from `members` (bool per document) by the group's rule; `already`: what other groups contribute."""
        if group.rule == "natural":
            return rules.natural(members, draw, cost, budget)
        if group.rule == "density":
            return rules.densest(members, draw, cost, budget, rules.density(counts), group.min_density)
        wanted = self.plan.settings.choose
        return rules.coverage(
            counts,
            members,
            draw,
            cost,
            budget,
            len(already),
            target=wanted.target,
            already=already,
            natural_share=wanted.natural_share,
        )

    def _write_tokens(
        self, counter: TokenCounter, in_corpus: np.ndarray, chosen: np.ndarray, targets: list[int | None]
    ) -> None:
        """Write a row for each new token: how often it occurs in the corpus and in the choice, and what it lacks."""
        target = max([*filter(None, targets), self.plan.settings.choose.target or 0])
        with Writer(self.plan.folder(self.name) / "tokens.parquet", TOKENS) as table:
            for number, token in enumerate(counter.pieces()):
                short = "short of text" if in_corpus[number] < target else "short of budget"
                table.write(
                    {
                        "id": counter.base_vocab_size + number,
                        "token": token,
                        "in_corpus": int(in_corpus[number]),
                        "chosen": int(chosen[number]),
                        "target": target,
                        "status": "reached" if chosen[number] >= target else short,
                    }
                )

    def _write_places(self, counts: Counts, chosen: np.ndarray) -> None:
        """Deal the chosen documents out to the shards in random order; held-out ones go to one more."""
        shards = self.plan.settings.write.shards
        order = random_order(counts.key, self.plan.settings.seed, SHUFFLE)
        place = np.full(len(counts), -1)
        place[chosen] = (order[chosen] >> np.uint64(40)).astype(np.int64) % shards
        place[counts.held_out] = shards
        for rank, (start, end) in enumerate(itertools.pairwise(counts.first)):
            wanted = place[start:end] >= 0
            np.savez(
                self.plan.file(self.name, rank, ".npz"),
                row=counts.row[start:end][wanted],
                place=place[start:end][wanted],
                order=order[start:end][wanted],
                tokens=counts.tokens[start:end][wanted],
            )


def _spent(counts: Counts, group: GroupSettings, choice: rules.Choice, held: int) -> Spent:
    return Spent(
        asked=group.share,
        given=choice.spent,
        documents=int(choice.chosen.sum()),
        bytes=int(counts.bytes[choice.chosen].sum()),
        tokens=int(counts.tokens[choice.chosen].sum()),
        new_tokens=int(counts.new_tokens[choice.chosen].sum()),
        held=held,
        natural_share=choice.natural_share,
        target=choice.target,
        rule=group.rule,
    )
