"""The steps from text to shards, as datatrove pipeline steps: each reads files, writes files, and can be run anywhere.

A step's task is known by its rank; tasks of the same rank work on the same input piece from reading to
splitting. What is global (repeated lines, clusters of duplicates, the choice) is a step of one task.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.utils.text import TextNormConfig, simplify_text
from loguru import logger

from eeve_axolotl.corpus import choose as rules
from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus.counts import Counts, TokenCounter, write_counts
from eeve_axolotl.corpus.filters import (
    FragmentFilter,
    LengthFilter,
    RepetitionFilter,
    ScriptFilter,
    StopwordFilter,
)
from eeve_axolotl.corpus.inputs import Piece, read_piece, texts_of
from eeve_axolotl.corpus.languages import LANGUAGES
from eeve_axolotl.corpus.perplexity import CharacterModel, KenLM, PerplexityFilter, train_with_threshold
from eeve_axolotl.corpus.settings import CorpusSettings, GroupSettings
from eeve_axolotl.corpus.store import DOCUMENTS, Tally, Writer, rows
from eeve_axolotl.corpus.text import WORDS, n_gram_hashes, normalise, word_hashes
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import read_json, write_json

# datatrove reports each task at length; only in a cluster job's own log is that of use.
if "SLURM_JOB_ID" not in os.environ:
    logger.disable("datatrove")

# What became of a document after the search for duplicates.
TRAIN, COPY, NEAR_COPY, HELD_OUT = range(4)

# Diacritics are left alone: taking them off costs most of the time, and Hangul has none.
MINHASH = MinhashConfig(norm_config=TextNormConfig(norm_unicode_diacritics=False))


@dataclass(frozen=True)
class Plan:
    """All that a step needs to know: the settings, the input pieces, the tokenizer, and a folder per step."""

    settings: CorpusSettings
    pieces: list[Piece]
    base_vocab_size: int
    folders: dict[str, str]
    staging: str  # the output, until it is whole

    def folder(self, step: str) -> Path:
        """Where `step` writes."""
        return Path(self.folders[step])

    def file(self, step: str, rank: int, ending: str = ".parquet") -> Path:
        """What `step` writes for one piece."""
        return self.folder(step) / f"{rank:05d}{ending}"

    def files(self, step: str, ending: str = ".parquet") -> list[Path]:
        """What `step` wrote, piece by piece."""
        return [self.file(step, rank, ending) for rank in range(len(self.pieces))]

    @property
    def groups(self) -> list[str]:
        """The names of the mix."""
        return list(self.settings.mix)

    def counter(self) -> TokenCounter:
        """The extended tokenizer."""
        return TokenCounter(self.settings.tokenizer, self.base_vocab_size)


class Step(PipelineStep):
    """A step of ours: `work` does it; a user's mistake is left in a file for the command to tell."""

    type = "corpus"

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Run `work`; pass on the documents that it yields, if any."""
        folder = self.plan.folder(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield from self.work(rank) or ()
        except EEVEError as error:
            # Not every executor brings a task's exception back to us.
            (folder / f"{rank:05d}.error").write_text(str(error), encoding="utf-8")
            raise

    def work(self, rank: int):
        """The step's task `rank`."""
        raise NotImplementedError


def group_filters(group: GroupSettings, learned: Path) -> list[BaseFilter]:
    """The filters of a group, the cheap ones first. `learned`: where its perplexity model is, if it has one."""
    chosen, known = group.filters, LANGUAGES.get(group.language or "")
    scripts = tuple(chosen.scripts or (known.scripts if known else ()))
    words = frozenset(chosen.stopwords or (known.stopwords if known else ()))
    endings = tuple(
        chosen.stopword_endings if chosen.stopword_endings is not None else (known.endings if known else ())
    )
    filters: list[BaseFilter] = [LengthFilter(chosen.min_characters)]
    if scripts and chosen.min_script_share:
        filters.append(ScriptFilter(scripts, chosen.min_script_share))
    if chosen.max_short_lines < 1:
        filters.append(FragmentFilter(chosen.max_short_lines))
    if (words or endings) and chosen.min_stopword_ratio:
        filters.append(StopwordFilter(words, endings, chosen.min_stopword_ratio))
    if chosen.repetition:
        filters.append(RepetitionFilter())
    if chosen.perplexity:
        if chosen.perplexity.kenlm:
            load = partial(KenLM, chosen.perplexity.kenlm, chosen.perplexity.sentencepiece)
            filters.append(PerplexityFilter(load, chosen.perplexity.maximum))
        else:
            threshold = chosen.perplexity.maximum or read_json(learned.with_suffix(".json"))["maximum"]
            filters.append(PerplexityFilter(partial(CharacterModel.load, learned), threshold))
    return filters


class Learn(Step):
    """Train the perplexity models on the groups' good text. One task."""

    name = "learn"

    def work(self, rank: int) -> None:
        """Write a model and its threshold for each group that asks for one."""
        for number, group in enumerate(self.plan.settings.mix.values()):
            wanted = group.filters.perplexity
            if wanted and wanted.good_text:
                model, maximum = train_with_threshold(
                    map(normalise, texts_of(wanted.good_text)), wanted.quantile
                )
                model.save(learned_model(self.plan, number))
                write_json(learned_model(self.plan, number).with_suffix(".json"), {"maximum": maximum})


def learned_model(plan: Plan, group: int) -> Path:
    """The perplexity model of a group."""
    return plan.folder("learn") / f"group{group}.npz"


class Filter(Step):
    """Read a piece, normalise, drop what the group's filters drop, and count the lines that are left."""

    name = "filter"

    def work(self, rank: int) -> None:
        """Write the documents that are kept, their lines' hashes, and a tally."""
        piece = self.plan.pieces[rank]
        name = self.plan.groups[piece.group]
        group = self.plan.settings.mix[name]
        filters = group_filters(group, learned_model(self.plan, piece.group))
        shortest, tally = self.plan.settings.deduplicate.shortest_line, Tally()
        lines = _LineCount()
        with Writer(self.plan.file(self.name, rank), DOCUMENTS) as kept:
            for record in read_piece(piece, group):
                text, origin = normalise(record.text), f"{record.file}:{record.line}"
                size = len(text.encode())
                tally.add(name, "read", size)
                reason = _first_objection(filters, Document(text, origin))
                if reason:
                    tally.add(name, reason, size, text)
                    continue
                kept.write({"text": text, "group": piece.group, "origin": origin, "key": 0, "bytes": size})
                lines.add(dup.line_hashes(text, shortest))
        lines.save(self.plan.file(self.name, rank, ""))
        write_json(self.plan.file(self.name, rank, ".json"), tally.as_json())


def _first_objection(filters: list[BaseFilter], document: Document) -> str | None:
    """`filter: reason` of the first filter that drops the document."""
    for one in filters:
        kept, reason = get_filter_result(one.filter(document))
        if not kept:
            return f"{one.name}: {reason}"
    return None


@dataclass
class _LineCount:
    """In how many documents each line occurs, merged now and then to stay small."""

    waiting: list[np.ndarray] = field(default_factory=list)
    size: int = 0
    hashes: np.ndarray = field(default_factory=lambda: np.array([], np.uint64))
    times: np.ndarray = field(default_factory=lambda: np.array([], np.int64))

    def add(self, hashes: np.ndarray) -> None:
        self.waiting.append(hashes)
        self.size += len(hashes)
        if self.size > 2_000_000:
            self._merge()

    def _merge(self) -> None:
        everything = np.concatenate([self.hashes, *self.waiting])
        times = np.concatenate([self.times, np.ones(self.size, np.int64)])
        self.hashes, inverse = np.unique(everything, return_inverse=True)
        self.times = np.bincount(inverse, times, len(self.hashes)).astype(np.int64)
        self.waiting, self.size = [], 0

    def save(self, path: Path) -> None:
        self._merge()
        np.save(path.with_suffix(".hashes.npy"), self.hashes)
        np.save(path.with_suffix(".times.npy"), self.times)


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

    def work(self, rank: int) -> Iterator[Document]:
        """Write the documents; yield each."""
        piece = self.plan.pieces[rank]
        name = self.plan.groups[piece.group]
        settings = self.plan.settings
        boilerplate = np.load(self.plan.folder("lines") / f"group{piece.group}.npy")
        least = settings.mix[name].filters.min_characters
        tally = Tally()
        with Writer(self.plan.file(self.name, rank), DOCUMENTS) as kept:
            for row in rows(self.plan.file("filter", rank)):
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
                yield Document(text, row["origin"])
        write_json(self.plan.file(self.name, rank, ".json"), tally.as_json())


def signatures(plan: Plan) -> list[PipelineStep]:
    """Cut lines, and MinHash what is left (datatrove, its first step)."""
    if not plan.settings.deduplicate.near:
        return [CutLines(plan)]
    return [
        CutLines(plan),
        _Signatures(str(plan.folder("signatures")), config=MINHASH, language=WORDS),
    ]


def buckets(plan: Plan) -> list[PipelineStep]:
    """Pairs of documents that are alike (datatrove, second step)."""
    return [
        _Buckets(
            str(plan.folder("signatures")),
            str(plan.folder("buckets")),
            config=MINHASH,
            lines_to_buffer=1000,
        )
    ]


class _Signatures(MinhashDedupSignature):
    """datatrove's first step with our n-gram hashes: its own do not run with xxhash 4, and are slower."""

    def get_shingles(self, text: str) -> np.ndarray:
        words = WORDS.word_tokenize(simplify_text(text, self.config.norm_config))
        return n_gram_hashes(word_hashes(words), self.config.n_grams).reshape(-1, 1)


class _Buckets(MinhashDedupBuckets):
    """datatrove's second step; a class of this module, so that its logging is what this module says."""


class _Clusters(MinhashDedupCluster):
    """datatrove's third step, without its progress bar."""

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
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


def random_order(keys: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """A pseudo-random uint64 for each key, which depends on nothing but the key, the seed and the purpose."""
    with np.errstate(over="ignore"):
        mixed = keys ^ np.uint64((seed * 1_000_003 + purpose) & (2**64 - 1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


HOLD_OUT, DRAW, SHUFFLE = range(3)  # purposes of a random order


class Roles(Step):
    """For each document: train, a copy, a near-copy, or held out. Hash the protected passages. One task.

    Of a cluster of near-duplicates the first document stays. Held-out text is therefore never a
    near-duplicate of training text; shared passages are found by the next steps.
    """

    name = "roles"

    def work(self, rank: int) -> None:
        """Write an array of roles per piece."""
        plan = self.plan
        keys, groups, sizes, first = [], [], [], [0]
        for file in plan.files("documents"):
            table = pq.read_table(file, columns=["key", "group", "bytes"])
            for column, array in zip((keys, groups, sizes), table.columns, strict=True):
                column.append(array.to_numpy())
            first.append(first[-1] + table.num_rows)
        key, group, size = np.concatenate(keys), np.concatenate(groups), np.concatenate(sizes)
        roles = np.where(dup.later_copies(key), COPY, TRAIN).astype(np.uint8)
        if plan.settings.deduplicate.near:
            roles[self._later_in_cluster(first) & (roles == TRAIN)] = NEAR_COPY
        order = random_order(key, plan.settings.seed, HOLD_OUT)
        for number in range(len(plan.groups)):
            roles[self._held_out(np.flatnonzero((group == number) & (roles == TRAIN)), order, size)] = (
                HELD_OUT
            )
        for rank, (start, end) in enumerate(itertools.pairwise(first)):
            np.save(plan.file(self.name, rank, ".npy"), roles[start:end])
        protected = map(normalise, texts_of(plan.settings.held_out.protect))
        np.save(plan.folder(self.name) / "protected.npy", dup.all_passages(protected))

    def _later_in_cluster(self, first: list[int]) -> np.ndarray:
        later = np.zeros(first[-1], bool)
        documents, cluster = [], []
        for rank in range(len(self.plan.pieces)):
            file = self.plan.folder("clusters") / f"{rank:06d}.clusters"
            if file.exists():
                pairs = np.fromfile(file, "<u4").reshape(-1, 2).astype(np.int64)
                documents.append(first[rank] + pairs[:, 0])
                cluster.append(pairs[:, 1])
        if documents:
            # Documents come in order, so the first of a cluster is the first of its number.
            documents, cluster = np.concatenate(documents), np.concatenate(cluster)
            order = np.argsort(documents, kind="stable")
            later[documents[order][dup.later_copies(cluster[order])]] = True
        return later

    def _held_out(self, members: np.ndarray, order: np.ndarray, size: np.ndarray) -> np.ndarray:
        wanted = self.plan.settings.held_out
        picked = members[np.argsort(order[members], kind="stable")][: round(wanted.share * len(members))]
        return picked[np.cumsum(size[picked]) <= wanted.max_bytes]


class Passages(Step):
    """Hash the passages of the held-out documents of a piece."""

    name = "passages"

    def work(self, rank: int) -> None:
        """Write the sorted hashes."""
        roles = np.load(self.plan.file("roles", rank, ".npy"))
        documents = rows(self.plan.file("documents", rank), ["text"])
        held_out = (row["text"] for row, role in zip(documents, roles, strict=True) if role == HELD_OUT)
        np.save(self.plan.file(self.name, rank, ".npy"), dup.all_passages(held_out))


CUT = pa.schema([("row", pa.int64()), ("text", pa.string())])


class Score(Step):
    """Count new tokens once per document, without copies, and without lines that hold held-out passages."""

    name = "counts"

    def work(self, rank: int) -> None:
        """Write the counts of a piece, the texts from which lines were cut, and a tally."""
        plan, tally = self.plan, Tally()
        held_out = [np.load(file) for file in plan.files("passages", ".npy")]
        secret = np.unique(np.concatenate([np.load(plan.folder("roles") / "protected.npy"), *held_out]))
        roles = np.load(plan.file("roles", rank, ".npy"))
        with Writer(self.cut(plan, rank), CUT) as cut:
            kept = self._kept(rank, roles, secret, cut, tally)
            write_counts(plan.file(self.name, rank), plan.counter(), kept)
        write_json(plan.file(self.name, rank, ".json"), tally.as_json())

    @classmethod
    def cut(cls, plan: Plan, rank: int) -> Path:
        """The documents of a piece from which this step cut lines."""
        return plan.file(cls.name, rank, ".cut.parquet")

    def _kept(self, rank: int, roles, secret: np.ndarray, cut: Writer, tally: Tally) -> Iterator[dict]:
        name = self.plan.groups[self.plan.pieces[rank].group]
        least = self.plan.settings.mix[name].filters.min_characters
        for number, row in enumerate(rows(self.plan.file("documents", rank))):
            role, text, size = roles[number], row["text"], row["bytes"]
            if role == COPY:
                tally.add(name, "duplicates: exact copy", size, text)
                continue
            if role == NEAR_COPY:
                tally.add(name, "duplicates: near copy", size, text)
                continue
            if role == TRAIN:
                text = normalise(dup.without_passages(text, secret)) if len(secret) else text
                if len(text) < max(least, len(row["text"]) / 2):
                    tally.add(name, "leaks: mostly held-out passages", size, row["text"])
                    continue
                if text != row["text"]:
                    tally.add(name, "leaks: held-out passages cut", size - len(text.encode()))
                    cut.write({"row": number, "text": text})
            tally.add(name, "held out" if role == HELD_OUT else "to choose from", len(text.encode()))
            yield {**row, "text": text, "row": number, "held_out": role == HELD_OUT}


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
        chosen, already, spent = np.zeros(len(counts), bool), np.zeros(counter.new_tokens), {}
        # Groups that nothing is asked of come first: what they contribute, the others need not.
        for name in sorted(settings.mix, key=lambda name: settings.mix[name].rule != "natural"):
            choice = self._choose(
                counts, settings.mix[name], held[name], draw, cost, budget, counter, already
            )
            chosen |= choice.chosen
            already = already + counts.total(choice.chosen, counter.new_tokens)
            spent[name] = {
                "asked": settings.mix[name].share,
                "given": choice.spent,
                "documents": int(choice.chosen.sum()),
                "bytes": int(counts.bytes[choice.chosen].sum()),
                "tokens": int(counts.tokens[choice.chosen].sum()),
                "new_tokens": int(counts.new_tokens[choice.chosen].sum()),
                "held": int(cost[held[name]].sum()),
                "natural_share": choice.natural_share,
                "target": choice.target,
                "rule": settings.mix[name].rule,
            }
        if not chosen.any():
            raise EEVEError(
                f"the budget of {budget:,.0f} {_unit(settings)} is smaller than any document; raise `budget`"
            )
        total = sum(entry["given"] for entry in spent.values())
        for entry in spent.values():
            entry["share"] = entry["given"] / total
        in_corpus = counts.total(~counts.held_out, counter.new_tokens)
        self._write_tokens(counter, in_corpus, already, spent)
        self._write_places(counts, chosen)
        write_json(
            plan.folder(self.name) / "choice.json",
            {
                "budget": budget,
                "most": most,
                "unit": _unit(settings),
                "groups": {name: spent[name] for name in settings.mix},
                "held_out": {
                    name: int(((counts.group == number) & counts.held_out).sum())
                    for number, name in enumerate(settings.mix)
                },
            },
        )

    def _budget(self, held: dict[str, np.ndarray], cost: np.ndarray) -> tuple[float, float]:
        """The budget in the unit of `cost`, and the most that the corpus can give in this mix."""
        settings = self.plan.settings
        gives = {name: cost[members].sum() / settings.mix[name].share for name, members in held.items()}
        scarce = min(gives, key=gives.get)
        most = float(gives[scarce])
        if most == 0:
            raise EEVEError(f"no document of {scarce!r} is left after filtering; see its filters in `mix`")
        if settings.budget.share:
            return settings.budget.share * most, most
        asked = settings.budget.tokens or settings.budget.bytes
        if asked > most:
            raise EEVEError(
                f"the corpus holds {most:,.0f} {_unit(settings)} in this mix, not the {asked:,} of `budget`: "
                f"{scarce!r} has {cost[held[scarce]].sum():,} for its share of {settings.mix[scarce].share:g}; "
                "lower the budget or that share, or give more text"
            )
        return float(asked), most

    def _choose(self, counts, group, members, draw, cost, budget, counter, already) -> rules.Choice:
        share = group.share * budget
        if group.rule == "natural":
            return rules.natural(members, draw, cost, share)
        if group.rule == "density":
            return rules.densest(members, draw, cost, share, rules.density(counts), group.min_density)
        wanted = self.plan.settings.choose
        return rules.coverage(
            counts,
            members,
            draw,
            cost,
            share,
            counter.new_tokens,
            wanted.target,
            already,
            wanted.natural_share,
        )

    def _write_tokens(self, counter: TokenCounter, in_corpus, chosen, spent: dict) -> None:
        targets = [entry["target"] for entry in spent.values() if entry["target"]]
        target = max([*targets, self.plan.settings.choose.target or 0])
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


def _unit(settings: CorpusSettings) -> str:
    return "tokens" if settings.budget.tokens else "bytes"


OUTPUT = pa.schema(
    [
        ("text", pa.string()),
        ("group", pa.string()),
        ("origin", pa.string()),
    ]
)
PLACED = OUTPUT.append(pa.field("order", pa.uint64())).append(pa.field("part", pa.int64()))


def longest_record(settings: CorpusSettings) -> int:
    """Tokens that Axolotl takes from one record before it truncates, less bos and eos."""
    factor = 64 if settings.write.read_as == "completion" else 1
    return factor * settings.write.sequence_len - 2


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
        counter, limit = None, longest_record(plan.settings)
        cut = {row["row"]: row["text"] for row in rows(Score.cut(plan, rank)) if row["row"] in places}
        with contextlib.ExitStack() as stack:
            writers = {
                place: stack.enter_context(Writer(self.part(plan, place, rank), PLACED))
                for place in sorted({place for place, _, _ in places.values()})
            }
            for number, row in enumerate(rows(plan.file("documents", rank))):
                if number not in places:
                    continue
                place, order, tokens = places[number]
                texts = [cut.get(number, row["text"])]
                if tokens > limit:
                    counter = counter or plan.counter()
                    texts = pieces_of(texts[0], tokens, limit, counter)
                for part, text in enumerate(texts):
                    group = plan.groups[row["group"]]
                    writers[place].write(
                        {"text": text, "group": group, "origin": row["origin"], "order": order, "part": part}
                    )

    @classmethod
    def part(cls, plan: Plan, place: int, rank: int) -> Path:
        """The documents that piece `rank` gives to the shard `place`."""
        return plan.folder(cls.name) / f"{place:05d}" / f"{rank:05d}.parquet"


class Shuffle(Step):
    """Bring together what the pieces give to one shard, in random order."""

    name = "shards"

    def work(self, rank: int) -> None:
        """Write the shard `rank`; the one after the last is the held-out text."""
        plan = self.plan
        files = [Split.part(plan, rank, piece) for piece in range(len(plan.pieces))]
        records = [row for file in files if file.exists() for row in rows(file)]
        records.sort(key=lambda row: (row["order"], row["origin"], row["part"]))
        held_out = rank == plan.settings.write.shards
        name = Path("held_out") / "00000.parquet" if held_out else Path("train") / f"{rank:05d}.parquet"
        with Writer(Path(plan.staging) / name, OUTPUT) as shard:
            for row in records:
                shard.write({column: row[column] for column in OUTPUT.names})


class Report(Step):
    """Tell what was done, and move the output into place. One task."""

    name = "report"

    def work(self, rank: int) -> None:
        """Write manifest, tables, report and plots; publish."""
        from eeve_axolotl.corpus.report import publish

        publish(self.plan)
