"""Drop documents that are not good enough, piece by piece, and count the lines of those that are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result

from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus.filters import (
    FragmentFilter,
    LengthFilter,
    RepetitionFilter,
    ScriptFilter,
    StopwordFilter,
)
from eeve_axolotl.corpus.inputs import read_piece, texts_of
from eeve_axolotl.corpus.languages import LANGUAGES
from eeve_axolotl.corpus.perplexity import CharacterModel, KenLM, PerplexityFilter, train_with_threshold
from eeve_axolotl.corpus.plan import Plan
from eeve_axolotl.corpus.settings import GroupSettings, PerplexitySettings
from eeve_axolotl.corpus.steps.base import Step
from eeve_axolotl.corpus.store import DOCUMENTS, Tally, Writer
from eeve_axolotl.corpus.text import normalise
from eeve_axolotl.files import write_json
from eeve_axolotl.records import THRESHOLD, read_there


def group_filters(group: GroupSettings, learned: Path) -> list[BaseFilter]:
    """The filters of a group, the cheap ones first. `learned`: where its perplexity model is, if it has one."""
    chosen, known = group.filters, LANGUAGES.get(group.language or "")
    scripts = tuple(chosen.scripts or (known.scripts if known else ()))
    words = frozenset(chosen.stopwords or (known.stopwords if known else ()))
    own = chosen.stopword_endings  # an empty list is an answer: no ending counts
    endings = tuple(own if own is not None else (known.endings if known else ()))
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
        filters.append(_perplexity_filter(chosen.perplexity, learned))
    return filters


def _perplexity_filter(wanted: PerplexitySettings, learned: Path) -> PerplexityFilter:
    maximum = wanted.maximum or float(read_there(learned.with_suffix(".json"), THRESHOLD)["maximum"])
    if wanted.kenlm:
        return PerplexityFilter(partial(KenLM, wanted.kenlm, wanted.sentencepiece), maximum)
    return PerplexityFilter(partial(CharacterModel.load, learned), maximum)


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
        with Writer(self.plan.file(self.name, rank), DOCUMENTS, dictionary=False) as kept:
            for record in read_piece(piece, group):
                text, origin = normalise(record.text), f"{record.file}:{record.line}"
                spelled = text.encode()
                size = len(spelled)
                tally.add(name, "read", size)
                reason = _first_objection(filters, DatatroveDocument(text, origin))
                if reason:
                    tally.add(name, reason, size, text)
                    continue
                kept.write({"text": spelled, "group": piece.group, "origin": origin, "key": 0, "bytes": size})
                lines.add(dup.line_hashes(text, shortest))
        lines.save(self.plan.file(self.name, rank, ""))
        write_json(self.plan.file(self.name, rank, ".json"), tally.as_json())


def _first_objection(filters: list[BaseFilter], document: DatatroveDocument) -> str | None:
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
