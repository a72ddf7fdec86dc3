"""`axolotl eeve tokenizer`: a corpus and a base tokenizer in, an extended tokenizer and its manifest out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from tokenizers import Tokenizer

import eeve_axolotl
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import replacing, write_json
from eeve_axolotl.logs import logger
from eeve_axolotl.records import TOKENIZER_MANIFEST
from eeve_axolotl.settings import Settings
from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer import candidates, report, spm
from eeve_axolotl.tokenizer.counting import count
from eeve_axolotl.tokenizer.curation import Curation
from eeve_axolotl.tokenizer.letters import sharing
from eeve_axolotl.tokenizer.select import Selection, count_tokens, select
from eeve_axolotl.tokenizer.words import segmentation

LOG = logger("tokenizer")

# Settings that change nothing in the tokenizer: the manifest is the same without them.
_WHERE_AND_HOW = {
    "output",
    "held_out",
    "overwrite",
    "memory_mb",
    "workers",
    "engine",
    "work_directory",
    "keep_work",
}


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
    """How candidates are found: the card's intermediate tokenizer, or `continued` BPE (arXiv 2512.03989), merges on
    top of the base's own. On unseen Korean they save the same, within 0.4 %, on SOLAR's tokenizer and on tekken
    (benchmarks/RESULTS.md); the card's is the default."""

    share_fragments: bool = False
    """For byte-level bases that lack a script's first bytes (Thai, Devanagari on an English base): add tokens for
    these even where other characters begin with them too; the manifest lists those as `also_changed`."""

    intermediate_vocab_size: int = Field(default=40_000, gt=0)
    """Size of the intermediate tokenizer (card, step 1)."""

    new_tokens: int | None = Field(default=8_960, gt=0)
    """How many tokens to add at most (paper 2.1); null for all that are frequent enough."""

    min_count: int | None = Field(default=None, ge=0)
    """Tokens seen less often in the corpus are dropped (card, step 5: 6,000 over 100 GB)."""

    min_count_per_gb: float | None = Field(default=None, ge=0)
    """The same for each GB of corpus, so that a small corpus works; 60 is the card's rate."""

    max_rounds: int = Field(default=300, gt=0)
    """Cap on rounds of counting (card, step 7)."""

    round_vocab_to: int = Field(default=1, gt=0)
    """Add fewer tokens, so that the vocabulary's size is a multiple of this (64 suits most hardware)."""

    allow: list[str] = Field(default=[])
    """Files of tokens to add however rare, one on a line (`#` begins a comment), ▁ for the space before a word."""

    deny: list[str] = Field(default=[])
    """Files of tokens never to add, single letters too."""

    reject: list[str] = Field(default=[])
    """Regular expressions: a token that one matches anywhere is not added, unless it is a single letter."""

    max_token_length: int | None = Field(default=None, gt=0)
    """Longer tokens are not added, in characters without the ▁."""

    held_out: list[Source] = Field(default=[])
    """Text that is not in `corpus`, for the report to measure the tokenizer on."""

    memory_mb: int = Field(default=4_000, ge=100)
    """Memory for counting the corpus's words, all processes together; more words than fit go to disk."""

    workers: int = Field(default=1, gt=0)
    """How many processes count at once; each reads in one thread and counts in another."""

    engine: Literal["local", "ray"] = "local"
    """Where they run: this machine, or the Ray cluster that RAY_ADDRESS names (it must share the files)."""

    work_directory: str | None = None
    """Where counts are kept while they are made, and found again after a run that was killed; beside `output`
    unless given."""

    keep_work: bool = False
    """Keep the counts after success, for another build from the same corpus."""

    @field_validator("script", "allow", "deny", mode="before")
    @classmethod
    def _one_or_several(cls, value):
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
        rate = 60 if self.min_count_per_gb is None else self.min_count_per_gb
        return max(1, round(rate * corpus_bytes / 1e9))


def build(settings: TokenizerSettings) -> dict:
    """Build the extended tokenizer and return its manifest.

    The directory is written beside `output` and moved into place. Same inputs give the same bytes.
    Raises EEVEError for anything a user can put right.
    """
    output = Path(settings.output)
    if output.exists() and not settings.overwrite:
        raise EEVEError(f"output {output} exists; choose another directory, or set overwrite: true")
    base = bases.load(settings.base)
    shards = [shard for source in settings.corpus for shard in source.shards()]
    state = json.loads(base.backend_tokenizer.to_str())
    words = segmentation(state, settings.script)
    curation = Curation.read(words, settings.allow, settings.deny, settings.reject, settings.max_token_length)
    work = Path(settings.work_directory or output.with_name(f".{output.name}.work"))
    table = count(
        shards,
        words,
        work,
        memory_mb=settings.memory_mb,
        workers=settings.workers,
        engine=settings.engine,
    )
    threshold = settings.threshold(table.bytes)
    LOG.info(
        "corpus: %s documents, %.1f MB, %s distinct words; tokens seen less than %s times are dropped",
        f"{table.documents:,}", table.bytes / 1e6, f"{table.distinct:,}", f"{threshold:,}",
    )  # fmt: skip
    selection = select(
        state,
        table,
        first_id=len(base),
        new_tokens=settings.new_tokens,
        intermediate_vocab_size=settings.intermediate_vocab_size,
        min_count=threshold,
        max_rounds=settings.max_rounds,
        method=settings.method,
        share_fragments=settings.share_fragments,
        most_words=settings.memory_mb * 1000,
        curation=curation,
        multiple=settings.round_vocab_to,
        threads=settings.workers,
    )
    extended = bases.extended_state(state, selection.tokens, len(base))
    before = sum(count_tokens(state, table).values())
    # By the tokenizers library: the selection must have counted the same.
    counts = count_tokens(extended, table)
    after = sum(counts.values())
    if any(counts[token] != count for token, count in selection.counts.items()):
        raise RuntimeError("the selection counted other tokens than the tokenizer makes; please report this")
    model = _sentencepiece(settings.base, base.backend_tokenizer, extended, selection.tokens, shards)
    manifest = {
        "base": settings.base,
        "base_sha256": bases.identity(base),
        "base_vocab_size": len(base),
        "vocab_size": len(base) + len(selection.tokens),
        "settings": settings.model_dump(exclude=_WHERE_AND_HOW),
        "corpus": {
            "documents": table.documents,
            "bytes": table.bytes,
            "files": table.files,
            "distinct_words": table.distinct,
        },
        "min_count": threshold,
        "tokens_in_words": {"base": before, "extended": after},
        "rounds": selection.rounds,
        "unreachable": _unreachable(extended, selection),
        "sentencepiece": model is not None,
        "also_changed": sharing(selection.fragments, table.segmentation),
        "versions": {"eeve_axolotl": eeve_axolotl.__version__, "tokenizers": version("tokenizers")},
        "counts": selection.counts,
    }
    texts = {"train": shards}
    if settings.held_out:
        texts["held out"] = [shard for source in settings.held_out for shard in source.shards()]

    def beside(directory: Path) -> None:
        candidates.write(directory / candidates.FILE, selection.candidates, table, shards)
        tokenizers = (base.backend_tokenizer, Tokenizer.from_file(str(directory / "tokenizer.json")))
        report.write(directory / report.DIRECTORY, *tokenizers, manifest, texts)

    _write(output, base, extended, model, manifest, beside)
    if not settings.keep_work:
        shutil.rmtree(work)
    return manifest


def _unreachable(state: dict, selection: Selection) -> int:
    """How many new tokens the tokenizer does not produce even from their own text."""
    model = bases.model_of(state)
    return sum(model.encode(token, add_special_tokens=False).tokens != [token] for token in selection.tokens)


def _sentencepiece(name: str, base: Tokenizer, state: dict, tokens: list[str], shards: list) -> bytes | None:
    """The extended SentencePiece model, if the base has one and the extended one segments like the fast tokenizer."""
    file = bases.sentencepiece_file(name)
    if file is None:
        return None
    before = file.read_bytes()
    after = spm.extended(before, tokens, base)
    if after is None:
        LOG.warning(
            "no tokenizer.model is written: the pieces of %s are not the base's tokens, or no BPE", file
        )
        return None
    fast = Tokenizer.from_str(json.dumps(state))
    corpus = (text for shard in shards for text in shard.texts())
    text, tried = spm.difference((before, after), (base, fast), tokens, corpus)
    if text is not None:
        LOG.warning("no tokenizer.model is written: SentencePiece segments %r differently", text[:80])
        return None
    LOG.info("tokenizer.model segments like the fast tokenizer: %s texts", f"{tried:,}")
    return after


def _write(
    output: Path, base, state: dict, model: bytes | None, manifest: dict, more: Callable[[Path], None]
) -> None:
    with replacing(output) as beside:
        base.save_pretrained(beside)
        (beside / spm.FILE).unlink(missing_ok=True)  # the base's, without the new tokens
        if model is not None:
            (beside / spm.FILE).write_bytes(model)
        text = json.dumps(state, ensure_ascii=False, indent=1)
        (beside / "tokenizer.json").write_text(text, encoding="utf-8")
        write_json(beside / TOKENIZER_MANIFEST, manifest)
        more(beside)
