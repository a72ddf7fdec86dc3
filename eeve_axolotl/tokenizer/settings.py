"""The keys of a tokenizer YAML."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from eeve_axolotl.settings import Settings
from eeve_axolotl.sources import Source

WHERE_AND_HOW = {
    "output",
    "held_out",
    "overwrite",
    "memory_mb",
    "workers",
    "engine",
    "work_directory",
    "keep_work",
}
"""Keys that change nothing in the tokenizer: its manifest leaves them out. Of more words than fit into `memory_mb` it
decides from which of them candidates are learned."""


class TokenizerSettings(Settings):
    """The keys of a tokenizer YAML. Defaults are the model card's."""

    base: str
    """The base tokenizer: a directory, a hub name, a `tokenizer.model` file, or `package:file`."""

    output: str
    """Directory to write."""

    overwrite: bool = False
    """Replace `output` if it exists."""

    corpus: list[Source] = Field(min_length=1)
    """The text to learn tokens from."""

    script: list[str] = Field(default=["Hangul"], min_length=1)
    """Unicode scripts of the new tokens, one name or several."""

    method: Literal["eeve", "continued"] = "eeve"
    """How candidates are found: `eeve`, with the card's intermediate tokenizer, or `continued`, by BPE merges on top of
    the base's own (arXiv 2512.03989). On unseen Korean they save the same, within 0.4 %, on SOLAR's tokenizer and on tekken
    (benchmarks/RESULTS.md); the card's is the default."""

    weigh_words_by: Literal["count", "domain"] = "count"
    """What a word counts for when tokens are chosen: `count`, how often it occurs; `domain`, where each entry of `corpus` is
    a domain and none decides alone: the sum over domains of (its share of the domain's words) ^ 0.85 times the root of the
    domain's size. The threshold and all counts that are told are occurrences either way. Ours: EEVE says nothing of it."""

    superwords: int = Field(default=0, ge=0)
    """How many of the new tokens, at most, may reach over the space between two words (할▁수, ▁수▁있습니다). 0 for none, as
    in EEVE's tokenizer. Only for SentencePiece-type bases; the corpus is read twice more."""

    share_fragments: bool = False
    """For byte-level bases that lack a script's first bytes (Thai, Devanagari on an English base): add tokens for
    these even where other characters begin with them too. The manifest lists those characters as `also_changed`."""

    intermediate_vocab_size: int = Field(default=40_000, gt=0)
    """Size of the intermediate tokenizer (card, step 1)."""

    new_tokens: int | None = Field(default=8_960, gt=0)
    """How many tokens to add at most (paper 2.1); null for all that are frequent enough."""

    min_count: int | None = Field(default=None, ge=0)
    """Tokens seen less often in the corpus are dropped (card, step 5: 6,000 over 100 GB). Single letters are in by how often
    the text has them, also inside longer tokens (step 6): alone they may be produced less often, or never. The manifest
    (`rare`) and the report count those."""

    min_count_per_gb: float | None = Field(default=None, ge=0)
    """Instead of `min_count`: that many for each GB of corpus, so that a small corpus works. 60 is the card's rate. Where it
    comes to 1 or less (a corpus below 25 MB at 60) it drops nothing, and a warning says so."""

    max_rounds: int = Field(default=300, gt=0)
    """Cap on the rounds of counting (card, step 7)."""

    round_vocab_to: int = Field(default=1, gt=0)
    """Add fewer tokens, so that the vocabulary's size is a multiple of this (64 suits most hardware)."""

    allow: list[str] = Field(default=[])
    """Files of tokens to add however rare they are: one on a line, ▁ for the space before a word, `#` before a comment."""

    deny: list[str] = Field(default=[])
    """Files of tokens never to add, single letters too."""

    reject: list[str] = Field(default=[])
    """Regular expressions: a token that one matches anywhere is not added, unless it is a single letter."""

    max_token_length: int | None = Field(default=None, gt=0)
    """Longer tokens are not added, in characters without the ▁ before them; one inside a superword counts."""

    held_out: list[Source] = Field(default=[])
    """Text that is not in `corpus`, for the report to measure the tokenizer on."""

    memory_mb: int = Field(default=4_000, ge=100)
    """Memory for counting the corpus's words, all processes together; more words than fit go to disk. Candidates are
    learned from as many of the most frequent words as fit."""

    workers: int = Field(default=1, gt=0)
    """How many processes count at once; each reads in one thread and counts in another."""

    engine: Literal["local", "ray"] = "local"
    """Where they run: this machine, or the Ray cluster that RAY_ADDRESS names (it must share the files)."""

    work_directory: str | None = None
    """Where counts are kept while they are made. A run that follows a killed one finds them there. Unless given it is
    beside `output`."""

    keep_work: bool = False
    """Keep the counts after success, for another build from the same corpus."""

    @field_validator("script", "allow", "deny", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_threshold(self) -> TokenizerSettings:
        if self.min_count is not None and self.min_count_per_gb is not None:
            raise ValueError("give min_count or min_count_per_gb, not both")
        return self

    def threshold(self, corpus_bytes: int) -> int:
        """The count below which a token is dropped, for a corpus of so many bytes."""
        if self.min_count is not None:
            return self.min_count
        return max(1, round(self.rate() * corpus_bytes / 1e9))

    def rate(self) -> float:
        """The same for a GB of corpus; 0 where an absolute number is given."""
        if self.min_count is not None:
            return 0
        return 60 if self.min_count_per_gb is None else self.min_count_per_gb
