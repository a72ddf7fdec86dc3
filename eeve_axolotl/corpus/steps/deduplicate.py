"""Find what the corpus says twice: lines of boilerplate, copies and near-copies; then hold documents out."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

import numpy as np
from datatrove.data import Document as DatatroveDocument
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupCluster

from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus.arrays import numpy_of
from eeve_axolotl.corpus.inputs import texts_of
from eeve_axolotl.corpus.minhash import MINHASH, Buckets, Signatures
from eeve_axolotl.corpus.plan import HOLD_OUT, Plan, random_order
from eeve_axolotl.corpus.steps.base import Step
from eeve_axolotl.corpus.store import DOCUMENTS, Tally, Writer, records, table_of
from eeve_axolotl.corpus.text import WORDS, normalise
from eeve_axolotl.files import write_json

# What became of a document after the search for duplicates.
TRAIN, COPY, NEAR_COPY, HELD_OUT = range(4)


class RepeatedLines(Step):
    """Find each group's boilerplate: lines that occur in very many of its documents. One task."""

    name = "lines"

    def work(self, rank: int) -> None:
        """Write the sorted hashes of each group's boilerplate lines."""
        least = self.plan.settings.deduplicate.repeated_lines
        for number in range(len(self.plan.groups)):
            files = [
                self.plan.file("filter", rank, "")
                for rank, piece in enumerate(self.plan.pieces)
                if piece.group == number
            ]
            found = dup.frequent(files, least) if least else np.array([], np.uint64)
            np.save(self.plan.folder(self.name) / f"group{number}.npy", found)


class CutLines(Step):
    """Cut boilerplate lines; a document that was mostly boilerplate is dropped. Yields what is left, for MinHash."""

    name = "documents"

    def work(self, rank: int) -> Iterator[DatatroveDocument]:
        """Write the documents; yield each."""
        piece = self.plan.pieces[rank]
        name = self.plan.groups[piece.group]
        settings = self.plan.settings
        boilerplate = np.load(self.plan.folder("lines") / f"group{piece.group}.npy")
        least = settings.mix[name].filters.min_characters
        tally = Tally()
        with Writer(self.plan.file(self.name, rank), DOCUMENTS, dictionary=False) as kept:
            for row in records(self.plan.file("filter", rank)):
                text = dup.without_lines(row["text"], boilerplate, settings.deduplicate.shortest_line)
                if text != row["text"]:
                    text = normalise(text)
                    if len(text) < max(least, len(row["text"]) / 2):
                        tally.add(name, "boilerplate: mostly repeated lines", row["bytes"], row["text"])
                        continue
                    size = len(text.encode())
                    tally.add(name, "lines cut", row["bytes"] - size)
                    row |= {"text": text, "bytes": size}
                row["key"] = dup.text_hash(text)
                kept.write(row)
                yield DatatroveDocument(text, row["origin"])
        write_json(self.plan.file(self.name, rank, ".json"), tally.as_json())


def signatures(plan: Plan) -> list[PipelineStep]:
    """Cut lines, and MinHash what is left."""
    if not plan.settings.deduplicate.near:
        return [CutLines(plan)]
    return [CutLines(plan), Signatures(plan.folder("signatures"), config=MINHASH, language=WORDS)]


def buckets(plan: Plan) -> list[PipelineStep]:
    """Pairs of documents that are alike."""
    return [Buckets(plan.folder("signatures"), plan.folder("buckets"))]


class _Clusters(MinhashDedupCluster):
    """datatrove's third step, without its progress bar."""

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            super().run(data, rank, world_size)


def clusters(plan: Plan) -> list[PipelineStep]:
    """Join pairs to clusters (datatrove, third step), decide what stays and what is held out."""
    if not plan.settings.deduplicate.near:
        return [Roles(plan)]
    joined = _Clusters(
        str(plan.folder("buckets")), str(plan.folder("clusters")), config=MINHASH, save_cluster_id=True
    )
    return [joined, Roles(plan)]


class Roles(Step):
    """For each document: train, a copy, a near-copy, or held out. Hash the protected passages. One task.

    Of a cluster of near-duplicates the first document stays. Held-out text is therefore never a
    near-duplicate of training text; shared passages are found by the next steps.
    """

    name = "roles"

    def work(self, rank: int) -> None:
        """Write an array of roles per piece."""
        plan = self.plan
        tables = [table_of(file, ["key", "group", "bytes"]) for file in plan.files("documents")]
        first = [0, *itertools.accumulate(table.num_rows for table in tables)]
        key, group, size = (
            np.concatenate([numpy_of(table[name]) for table in tables]) for name in ("key", "group", "bytes")
        )
        roles = np.where(dup.later_copies(key), COPY, TRAIN).astype(np.uint8)
        if plan.settings.deduplicate.near:
            roles[self._later_in_cluster(first) & (roles == TRAIN)] = NEAR_COPY
        order = random_order(key, plan.settings.seed, HOLD_OUT)
        for number in range(len(plan.groups)):
            members = np.flatnonzero((group == number) & (roles == TRAIN))
            roles[self._held_out(members, order, size)] = HELD_OUT
        for rank, (start, end) in enumerate(itertools.pairwise(first)):
            np.save(plan.file(self.name, rank, ".npy"), roles[start:end])
        protected = map(normalise, texts_of(plan.settings.held_out.protect))
        np.save(plan.folder(self.name) / "protected.npy", dup.all_passages(protected))

    def _later_in_cluster(self, first: list[int]) -> np.ndarray:
        """Bool per document: whether its cluster has an earlier one. `first`: the first document of each piece."""
        later = np.zeros(first[-1], bool)
        found = []
        for rank in range(len(self.plan.pieces)):
            file = self.plan.folder("clusters") / f"{rank:06d}.clusters"
            if file.exists():
                pairs = np.fromfile(file, "<u4").reshape(-1, 2).astype(np.int64)
                pairs[:, 0] += first[rank]  # the document's number in the whole corpus
                found.append(pairs)
        if found:
            document, cluster = np.concatenate(found).T
            order = np.argsort(
                document, kind="stable"
            )  # so that the first of a cluster is its first document
            later[document[order][dup.later_copies(cluster[order])]] = True
        return later

    def _held_out(self, members: np.ndarray, order: np.ndarray, size: np.ndarray) -> np.ndarray:
        """The documents of one group to hold out, of its `members` (numbers), the first in the random `order`."""
        wanted = self.plan.settings.held_out
        picked = members[np.argsort(order[members], kind="stable")][: round(wanted.share * len(members))]
        return picked[np.cumsum(size[picked]) <= wanted.max_bytes]
