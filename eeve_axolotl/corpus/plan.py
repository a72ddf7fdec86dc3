"""What one run of `axolotl eeve corpus` will do: its input pieces, a folder for each step, and what the report counts.

A step's folder is named after everything that its result depends on. A run that was killed takes up where
it was; a run with other settings computes again only what depends on them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from eeve_axolotl import inputs
from eeve_axolotl.args import EEVESettings, ScheduledStage, read_block
from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.corpus.inputs import Piece, identity, pieces
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.corpus.settings import CorpusSettings, PerplexitySettings
from eeve_axolotl.corpus.token_counter import TokenCounter, counter_of
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import beside
from eeve_axolotl.settings import read_mapping
from eeve_axolotl.text import text_spans
from eeve_axolotl.version import __version__
from eeve_axolotl.vocabulary import manifest_base_size

FORMAT = 3  # raise it when a step's result changes for the same settings


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
        return counter_of(self.settings.tokenizer, self.base_vocab_size)

    def text_spans(self, epoch: int) -> dict[str, tuple[int, int]]:
        """Where each stage of the recipes begins and stops to read, in tokens, by a name for the stage.

        A stage reads on where the one before it in the list stopped. `epoch`: tokens of the corpus.
        """
        wanted = self.settings.stages
        stages: dict[str, tuple[int, bool]] = {}
        for recipe in wanted.recipes:
            stages |= stage_tokens(recipe, wanted.gpus, epoch)
        return dict(zip(stages, text_spans(stages.values()), strict=True))


def make_plan(settings: CorpusSettings) -> Plan:
    """Look at inputs and tokenizer, and give every step its folder.

    Raises EEVEError for a tokenizer, a recipe or a source that cannot be read, before any work is done.
    """
    base = settings.base_vocab_size or manifest_base_size(settings.tokenizer)
    if not Path(settings.tokenizer).is_dir():
        raise EEVEError(
            f"tokenizer {settings.tokenizer} does not exist; build it with `axolotl eeve tokenizer`, or give the "
            "directory of an extended tokenizer"
        )
    if base is None:
        raise EEVEError(
            f"{settings.tokenizer} has no manifest that tells where its new tokens begin; set `base_vocab_size`"
        )
    for recipe in settings.stages.recipes:  # the last step reads them, hours later
        stage_tokens(recipe, settings.stages.gpus, epoch=0)
    found = pieces(settings)
    work = Path(settings.work or f"{settings.output.rstrip('/')}.work")
    folders, so_far = {}, hashlib.sha256(f"{__version__} {FORMAT}".encode())
    for step, keys in _depends(settings, found, base).items():
        so_far.update(json.dumps([step, keys], default=_plain, sort_keys=True, ensure_ascii=False).encode())
        folders[step] = str(work / f"{step}-{so_far.hexdigest()[:12]}")
    staging = beside(Path(f"{settings.output.rstrip('/')}.{so_far.hexdigest()[:12]}"))
    return Plan(settings, found, base, folders, str(staging))


def _depends(settings: CorpusSettings, found: list[Piece], base: int) -> dict[str, list[Any]]:
    """For each step in order, what its result depends on beside the steps before it."""
    return {
        "learn": [[_learns_from(group.filters.perplexity) for group in settings.mix.values()]],
        "filter": [
            [identity(piece) for piece in found],
            [
                {"name": name, **group.model_dump(include={"language", "template", "filters"})}
                for name, group in settings.mix.items()
            ],
            settings.deduplicate.shortest_line,
        ],
        "lines": [settings.deduplicate.repeated_lines],
        "documents": [],
        "signatures": [settings.deduplicate.near],
        "buckets": [],
        "clusters": [],
        "roles": [settings.held_out, settings.seed],
        "passages": [],
        "counts": [tokenizer_identity(settings.tokenizer), base],
        "choice": [
            [(group.share, group.rule, group.min_density) for group in settings.mix.values()],
            settings.budget,
            settings.choose,
            settings.write.shards,
        ],
        "split": [settings.write],
        "shards": [settings.output],
        "publish": [settings.stages],
    }


def _learns_from(wanted: PerplexitySettings | None) -> list[Any]:
    """A perplexity filter's settings, and its text or model by content."""
    if wanted is None:
        return []
    text = [shard.identity() for source in wanted.good_text or [] for shard in source.shards()]
    models = [inputs.of_path(file) for file in (wanted.kenlm, wanted.sentencepiece) if file]
    return [wanted, text, models]


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def stage_tokens(recipe: str | Path, gpus: int, epoch: int) -> dict[str, tuple[int, bool]]:
    """Tokens that each stage of an Axolotl recipe trains on, and whether it reads them from the corpus's beginning again,
    by a name for the stage.

    Its `max_steps` and `max_tokens` decide, whichever ends it first; without them, `num_epochs` of `epoch` tokens.
    A recipe without an `eeve:` block counts as one stage. Raises EEVEError for a recipe that cannot be read.
    """
    cfg = read_mapping(recipe)
    if cfg.get("eeve"):
        settings = read_block(cfg, str(recipe))
        schedule = settings.schedule()
    else:  # nothing of ours trains: neither block nor stage says anything beyond Axolotl's keys
        settings, schedule = EEVESettings.model_construct(), [ScheduledStage.model_construct()]
    budgets = {}
    for stage in schedule:
        most = OptimizerStep.of(cfg, settings, stage, processes=gpus).max_tokens
        name = Path(recipe).name + (f", stage {stage.resolved().name}" if len(schedule) > 1 else "")
        tokens = round(float(cfg.get("num_epochs") or 1) * epoch) if most is None else most
        budgets[name] = tokens, not cfg.get("eeve") or settings.text == "again"
    return budgets


# What a random order is for: two purposes have nothing to do with each other.
HOLD_OUT, DRAW, SHUFFLE = range(3)


def random_order(keys: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """A pseudo-random uint64 for each key, which depends on nothing but the key, the seed and the purpose."""
    with np.errstate(over="ignore"):
        mixed = keys ^ np.uint64((seed * 1_000_003 + purpose) & (2**64 - 1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
