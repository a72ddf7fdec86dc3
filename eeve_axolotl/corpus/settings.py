"""The keys of a corpus YAML, their defaults, and every message a user can get wrong."""

from __future__ import annotations

import re
import string
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from eeve_axolotl.corpus.languages import LANGUAGES
from eeve_axolotl.settings import Settings
from eeve_axolotl.sources import Source

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def amount(value: Any) -> Any:
    """`6.7GB`, `400M` or `1e9` as an integer; anything else is left for pydantic to judge."""
    match = re.fullmatch(r"\s*([\d_.]+(?:e\d+)?)\s*([kmgt]?)b?\s*", str(value), re.IGNORECASE)
    return round(float(match[1]) * _UNITS[match[2].lower()]) if match else value


def columns_of(template: str) -> list[str]:
    """The columns that a template names in braces. Raises ValueError if it is no template."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


class PerplexitySettings(Settings):
    """Drop documents that surprise a model of good text: a KenLM model's file, or text to learn from."""

    kenlm: str | None = None
    """An ARPA or binary KenLM file. Instead of `good_text`."""

    sentencepiece: str | None = None
    """The SentencePiece model whose pieces the KenLM model is over; left out, it is over words."""

    good_text: list[Source] | None = None
    """Text of the quality you want: a character n-gram model is trained on it. Instead of `kenlm`."""

    maximum: float | None = Field(default=None, gt=1)
    """The highest perplexity that is kept. Needed with `kenlm`."""

    quantile: float = Field(default=0.99, gt=0, le=1)
    """With `good_text`, in place of `maximum`: this share of the good text would be kept."""

    @model_validator(mode="after")
    def _one_model(self) -> PerplexitySettings:
        if (self.kenlm is None) == (self.good_text is None):
            raise ValueError("give either `kenlm` or `good_text`")
        if self.kenlm and self.maximum is None:
            raise ValueError("with `kenlm`, give `maximum`, the highest perplexity to keep")
        return self


class FilterSettings(Settings):
    """Which documents are good enough. Defaults are this project's own: the paper publishes no thresholds."""

    min_characters: int = Field(default=50, ge=0)
    """Shorter documents are dropped."""

    scripts: list[str] | None = None
    """Unicode scripts of the language, e.g. [Hangul]. Left out, those of `language`."""

    min_script_share: float = Field(default=0.5, ge=0, le=1)
    """Least share of the letters that belong to `scripts`. 0 switches the filter off."""

    stopwords: list[str] | None = None
    """Function words of the language. Left out, those of `language`."""

    stopword_endings: list[str] | None = None
    """Endings that mark a word of running text in a language which attaches its function words."""

    min_stopword_ratio: float = Field(default=0.15, ge=0, le=1)
    """Least share of words that are stopwords or end like one. 0 switches the filter off."""

    max_short_lines: float = Field(default=0.67, ge=0, le=1)
    """Drop pages with more than this share of short lines if nearly no line ends a sentence. 1: off."""

    repetition: bool = True
    """Drop documents that repeat their lines or n-grams (Gopher's rules, as datatrove has them)."""

    perplexity: PerplexitySettings | None = None
    """Drop documents that surprise a model of good text. Off unless given."""


class GroupSettings(Settings):
    """One part of the mix: a language, or parallel text."""

    share: float = Field(gt=0, le=1)
    """Share of the budget. The shares of all groups add up to 1."""

    sources: list[Source] = Field(min_length=1)
    """Where its text comes from."""

    language: str | None = None
    """`ko` or `en`: sets scripts and stopwords. Left out, give them under `filters`, or those filters are off."""

    template: str | None = None
    """For aligned text: the document that a record becomes, with its columns in braces, e.g. "{en}\\n{ko}"."""

    rule: Literal["coverage", "density", "natural"] = "natural"
    """How its documents are chosen: so that every new token is seen often enough (`coverage`), the most new
    tokens per token first (`density`, the paper's), or as they come (`natural`)."""

    min_density: float = Field(default=0.0, ge=0, le=1)
    """With `density`: least share of new tokens among a document's tokens."""

    filters: FilterSettings = FilterSettings()
    """Which of its documents are good enough."""

    @field_validator("template")
    @classmethod
    def _names_columns(cls, value: str | None) -> str | None:
        if value is not None and not columns_of(value):
            raise ValueError('the template names no column; write columns in braces, e.g. "{en}\\n{ko}"')
        return value

    @field_validator("language")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in LANGUAGES:
            raise ValueError(
                f"no stopwords and scripts are known for {value!r} (known: {', '.join(LANGUAGES)}); "
                "leave `language` out and give scripts and stopwords under `filters`"
            )
        return value


class BudgetSettings(Settings):
    """How much to choose, in one of three ways."""

    bytes: int | None = Field(default=None, gt=0)
    """Bytes of text (UTF-8), e.g. 6.7GB."""

    tokens: int | None = Field(default=None, gt=0)
    """Tokens under the extended tokenizer, e.g. 1.6G."""

    share: float | None = Field(default=None, gt=0, le=1)
    """Share of the most that the corpus can give in this mix."""

    _amounts = field_validator("bytes", "tokens", mode="before")(amount)

    @model_validator(mode="after")
    def _one(self) -> BudgetSettings:
        if sum(value is not None for value in (self.bytes, self.tokens, self.share)) != 1:
            raise ValueError("give exactly one of bytes, tokens and share")
        return self

    @property
    def unit(self) -> str:
        """What is counted: tokens or bytes."""
        return "tokens" if self.tokens else "bytes"


class ChooseSettings(Settings):
    """What the rule `coverage` aims at."""

    target: int | None = Field(default=None, gt=0)
    """Occurrences that every new token should reach. Left out: what each would have in a natural draw of the
    budget if all new tokens were equally frequent."""

    natural_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the budget drawn as it comes. Left out: the most that costs no coverage."""


class DeduplicationSettings(Settings):
    """What counts as said twice."""

    near: bool = True
    """Drop near-duplicates (MinHash over runs of 5 words, about 0.75 alike) as well as exact ones."""

    repeated_lines: int | None = Field(default=100, ge=2)
    """Cut lines that occur in at least this many documents of one group. null: cut none."""

    shortest_line: int = Field(default=15, ge=1)
    """Shorter lines are never cut, however often they occur."""


class HeldOutSettings(Settings):
    """Text kept from training, to measure on."""

    share: float = Field(default=0.005, ge=0, le=0.5)
    """Share of each group's documents."""

    max_bytes: int = Field(default=5_000_000, gt=0)
    """At most this much of each group."""

    protect: list[Source] = Field(default=[])
    """Other text that must not be in the training data, such as benchmarks: documents that share a passage
    with it lose it. `columns` names all that hold text."""

    _amounts = field_validator("max_bytes", mode="before")(amount)


class OutputSettings(Settings):
    """How the chosen documents are written."""

    shards: int = Field(default=8, ge=1)
    """Number of training files. Every file is a fair sample of the whole mix."""

    sequence_len: int = Field(default=4096, ge=16)
    """`sequence_len` of the recipes that will read the corpus."""

    read_as: Literal["completion", "streaming"] = "completion"
    """How the recipes will read it: Axolotl truncates a document of more than 64 x sequence_len tokens under
    `completion`, and of more than sequence_len under streaming pretraining. Longer documents are cut into
    several at a line or a blank, so that no text is lost."""

    @property
    def longest_record(self) -> int:
        """Tokens that Axolotl takes from one record before it truncates, less bos and eos."""
        return (64 if self.read_as == "completion" else 1) * self.sequence_len - 2


class ExecutorSettings(Settings):
    """Where the work is done, by datatrove's executors."""

    kind: Literal["local", "ray", "slurm"] = "local"
    """This machine, a Ray cluster, or Slurm (whose workers must see the same files)."""

    workers: int = Field(default=1, ge=1)
    """Tasks that run at the same time. The result does not depend on it."""

    memory_mb: int = Field(default=256, ge=1)
    """Memory for counts that the choice keeps between its passes; it reads again what does not fit."""

    options: dict[str, Any] = Field(default={})
    """Further arguments of datatrove's executor, e.g. partition and time for Slurm."""


class RecipeSettings(Settings):
    """For the report: how many tokens the recipes will train on."""

    recipes: list[str] = Field(default=[])
    """Stage recipes (Axolotl YAMLs) that will read this corpus."""

    gpus: int = Field(default=1, ge=1)
    """Number of processes that they run on."""


class CorpusSettings(Settings):
    """A corpus YAML."""

    tokenizer: str
    """Directory of the extended tokenizer (`axolotl eeve tokenizer`)."""

    base_vocab_size: int | None = Field(default=None, gt=0)
    """Tokens of the base tokenizer; only for a tokenizer without this project's manifest."""

    output: str
    """Directory to write. It appears when it is whole."""

    work: str | None = None
    """Directory for what is computed on the way; `<output>.work` if left out. A second run takes up what
    it finds there, and may be given other settings: only what depends on them is computed again."""

    overwrite: bool = False
    """Replace an existing output."""

    seed: int = 0
    """Decides the natural draw, the held-out documents and the order of the output."""

    mix: dict[str, GroupSettings] = Field(min_length=1)
    """The groups by name, e.g. korean, english, parallel."""

    budget: BudgetSettings
    """How much to choose."""

    choose: ChooseSettings = ChooseSettings()
    deduplicate: DeduplicationSettings = DeduplicationSettings()
    held_out: HeldOutSettings = HeldOutSettings()
    write: OutputSettings = OutputSettings()
    executor: ExecutorSettings = ExecutorSettings()
    stages: RecipeSettings = RecipeSettings()

    @field_validator("mix")
    @classmethod
    def _names(cls, value: dict[str, GroupSettings]) -> dict[str, GroupSettings]:
        for name in value:
            if not re.fullmatch(r"[^\W_][\w. -]*", name):
                raise ValueError(
                    f"the group {name!r} also names a file of held-out text; begin it with a letter or digit, and use "
                    "letters, digits, blanks, dots and hyphens"
                )
        return value

    @model_validator(mode="after")
    def _shares(self) -> CorpusSettings:
        total = sum(group.share for group in self.mix.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares under `mix` add up to {total:g}; make them add up to 1")
        if len(self.mix) > 100:
            raise ValueError("more than 100 groups under `mix`; put several sources in one group")
        return self
