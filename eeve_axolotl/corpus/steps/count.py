"""Count the new tokens of each document, without copies and without what is held out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus.counts import write_counts
from eeve_axolotl.corpus.plan import Plan
from eeve_axolotl.corpus.steps.base import Step
from eeve_axolotl.corpus.steps.deduplicate import COPY, HELD_OUT, NEAR_COPY, TRAIN
from eeve_axolotl.corpus.store import Tally, Writer, records
from eeve_axolotl.corpus.text import normalise, normalise_again
from eeve_axolotl.files import write_json


class Passages(Step):
    """Hash the passages of the held-out documents of a piece."""

    name = "passages"

    def work(self, rank: int) -> None:
        """Write the sorted hashes."""
        roles = np.load(self.plan.file("roles", rank, ".npy"))
        held_out = records(self.plan.file("documents", rank), ["text"], roles == HELD_OUT)
        found = dup.all_passages(row["text"] for row in held_out)
        np.save(self.plan.file(self.name, rank, ".npy"), found)


CUT = pa.schema([("row", pa.int64()), ("text", pa.string())])


class Score(Step):
    """Count new tokens once per document, without copies, and without lines that hold held-out passages."""

    name = "counts"

    def work(self, rank: int) -> None:
        """Write the counts of a piece, the texts from which lines were cut, and a tally."""
        plan, tally = self.plan, Tally()
        held_out = [np.load(file) for file in plan.files("passages", ".npy")]
        found = np.concatenate([np.load(plan.folder("roles") / "protected.npy"), *held_out])
        secret = dup.passage_set(found) if len(found) else None
        roles = np.load(plan.file("roles", rank, ".npy"))
        with Writer(self.cut(plan, rank), CUT) as cut:
            kept = self._kept(rank, roles, secret, cut, tally)
            write_counts(plan.file(self.name, rank), plan.counter(), kept)
        write_json(plan.file(self.name, rank, ".json"), tally.as_json())

    @classmethod
    def cut(cls, plan: Plan, rank: int) -> Path:
        """The documents of a piece from which this step cut lines."""
        return plan.file(cls.name, rank, ".cut.parquet")

    def _kept(
        self, rank: int, roles: np.ndarray, secret: dup.PassageSet | None, cut: Writer, tally: Tally
    ) -> Iterator[dict[str, Any]]:
        """The documents to count, as `write_counts` takes them; those with lines cut go to `cut` too."""
        name = self.plan.groups[self.plan.pieces[rank].group]
        least = self.plan.settings.mix[name].filters.min_characters
        for number, row in enumerate(records(self.plan.file("documents", rank))):
            role, text, size = roles[number], row["text"], row["bytes"]
            if role == COPY:
                tally.add(name, "duplicates: exact copy", size, text)
                continue
            if role == NEAR_COPY:
                tally.add(name, "duplicates: near copy", size, text)
                continue
            if role == TRAIN:
                text = text if secret is None else _without(text, secret)
                if len(text) < max(least, len(row["text"]) / 2):
                    tally.add(name, "leaks: mostly held-out passages", size, row["text"])
                    continue
                if text != row["text"]:
                    tally.add(name, "leaks: held-out passages cut", size - len(text.encode()))
                    cut.write({"row": number, "text": text})
            tally.add(name, "held out" if role == HELD_OUT else "to choose from", len(text.encode()))
            yield {**row, "text": text, "row": number, "held_out": role == HELD_OUT}


def _without(text: str, secret: dup.PassageSet) -> str:
    """A document's text in normal form without the lines that hold a passage of `secret`."""
    left = dup.without_passages(text, secret)
    return normalise_again(text) if left == text else normalise(left)
