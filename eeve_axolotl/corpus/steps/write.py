"""Write the chosen documents: each piece's share of every shard, then the shards, then what tells of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eeve_axolotl.corpus.arrays import array_of
from eeve_axolotl.corpus.manifest import TRAIN, held_out_file
from eeve_axolotl.corpus.plan import Plan
from eeve_axolotl.corpus.publish import publish
from eeve_axolotl.corpus.steps.base import Step
from eeve_axolotl.corpus.steps.count import Score
from eeve_axolotl.corpus.store import AT_A_TIME, Writer, records, table_of
from eeve_axolotl.corpus.token_counter import TokenCounter

OUTPUT = pa.schema(
    [
        ("text", pa.string()),
        ("group", pa.string()),
        ("origin", pa.string()),
    ]
)
PLACED = OUTPUT.append(pa.field("order", pa.uint64())).append(pa.field("part", pa.int64()))


def pieces_of(text: str, tokens: int, limit: int, counter: TokenCounter) -> list[str]:
    """`text` in pieces of at most `limit` tokens, cut in the middle, at a line if there is one, else at a blank.

    Joined, the pieces are `text` again.
    """
    if tokens <= limit or len(text) < 2:
        return [text]
    middle, cut = len(text) // 2, 0
    for separator in ("\n\n", "\n", ". ", " "):
        before = text.rfind(separator, len(text) // 4, middle)
        after = text.find(separator, middle, 3 * len(text) // 4)
        found = [at + len(separator) for at in (before, after) if at >= 0]
        if found:
            cut = min(found, key=lambda at: abs(at - middle))
            break
    cut = cut or middle
    halves = (text[:cut], text[cut:])
    return [
        piece
        for half, ids in zip(halves, counter.ids(halves), strict=True)
        for piece in pieces_of(half, len(ids), limit, counter)
    ]


class Split(Step):
    """Sort the chosen documents of a piece by the shard that they go to."""

    name = "split"

    def work(self, rank: int) -> None:
        """Write one file per shard, and one for the held-out documents."""
        plan = self.plan
        with np.load(plan.file("choice", rank, ".npz")) as choice:
            places = {
                int(row): (int(place), int(order), int(tokens))
                for row, place, order, tokens in zip(
                    *(choice[name] for name in ("row", "place", "order", "tokens")), strict=True
                )
            }
        counter, limit = None, plan.settings.write.longest_record
        cut = {row["row"]: row["text"] for row in records(Score.cut(plan, rank)) if row["row"] in places}
        with contextlib.ExitStack() as stack:
            writers = {
                place: stack.enter_context(Writer(self.part(plan, place, rank), PLACED, dictionary=False))
                for place in sorted({place for place, _, _ in places.values()})
            }
            documents = pq.read_metadata(plan.file("documents", rank)).num_rows
            wanted = np.zeros(documents, bool)
            wanted[list(places)] = True
            numbers = np.flatnonzero(wanted).tolist()
            chosen = records(plan.file("documents", rank), wanted=wanted)
            for number, row in zip(numbers, chosen, strict=True):
                place, order, tokens = places[number]
                texts = [cut[number] if number in cut else row["text"]]
                if tokens > limit:
                    counter = counter or plan.counter()
                    texts = pieces_of(texts[0], tokens, limit, counter)
                group = plan.groups[row["group"]]
                for part, text in enumerate(texts):
                    writers[place].write(
                        {"text": text, "group": group, "origin": row["origin"], "order": order, "part": part}
                    )

    @classmethod
    def part(cls, plan: Plan, place: int, rank: int) -> Path:
        """The documents that piece `rank` gives to the shard `place`."""
        return plan.folder(cls.name) / f"{place:05d}" / f"{rank:05d}.parquet"


class Shuffle(Step):
    """Bring together what the pieces give to one shard, in random order; of held-out text, to a file for each group."""

    name = "shards"

    def work(self, rank: int) -> None:
        """Write the shard `rank`; after the last one comes the held-out text."""
        plan = self.plan
        parts = (Split.part(plan, rank, piece) for piece in range(len(plan.pieces)))
        tables = [table_of(file) for file in parts if file.exists()]
        documents = pa.concat_tables(tables or [PLACED.empty_table()]).combine_chunks()
        del tables
        by = [(column, "ascending") for column in ("order", "origin", "part")]
        order = pc.sort_indices(documents, sort_keys=by)
        documents = documents.select(OUTPUT.names)
        if rank < plan.settings.write.shards:
            self._write(Path(plan.staging, TRAIN, f"{rank:05d}.parquet"), documents, order)
            return
        for group in plan.groups:
            is_of_group = pc.equal(documents["group"].take(order), array_of([group], pa.string())[0])
            of_group = order.filter(is_of_group)
            self._write(held_out_file(plan.staging, group), documents, of_group)

    @staticmethod
    def _write(file: Path, documents: pa.Table, order: pa.Array) -> None:
        """Write the documents whose numbers are `order`."""
        with Writer(file, OUTPUT) as shard:
            for begin in range(0, len(order), AT_A_TIME):
                shard.write_table(documents.take(order.slice(begin, AT_A_TIME)).combine_chunks())


class Publish(Step):
    """Tell what was done, and move the output into place. One task."""

    name = "publish"

    def work(self, rank: int) -> None:
        """Write manifest, tables, README and plot beside the shards; move all to where the user wants it."""
        publish(self.plan)
