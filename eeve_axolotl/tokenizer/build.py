"""`axolotl eeve tokenizer`: a corpus and a base tokenizer in, an extended tokenizer and its manifest out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from eeve_axolotl.checks import is_local_path
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import alone, check_writable, replacing, write_json
from eeve_axolotl.logs import logger
from eeve_axolotl.meter import Meter
from eeve_axolotl.records import (
    SENTENCEPIECE_MODEL,
    TOKENIZER_FILE,
    TOKENIZER_MANIFEST,
    WORK,
    WORK_MARKER,
    holds_a_model,
    is_ours,
    read,
)
from eeve_axolotl.secrets import redacted
from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer import candidate_table, reloading, savings, spm, superwords
from eeve_axolotl.tokenizer.counting import WordTable, count
from eeve_axolotl.tokenizer.counting.weigh import POWER
from eeve_axolotl.tokenizer.curation import Curation
from eeve_axolotl.tokenizer.letters import sharing
from eeve_axolotl.tokenizer.origin import files_of, known_since, made_of, what_changed
from eeve_axolotl.tokenizer.rarity import rare, sentence, warn_if_off
from eeve_axolotl.tokenizer.rules import Selection, SelectionRules
from eeve_axolotl.tokenizer.select import select
from eeve_axolotl.tokenizer.settings import WHERE_AND_HOW, TokenizerSettings
from eeve_axolotl.tokenizer.spelling import is_superword
from eeve_axolotl.tokenizer.token_counts import count_tokens, unreachable
from eeve_axolotl.tokenizer.watching import WatchedTable, counting
from eeve_axolotl.tokenizer.words import WordSplitter, word_splitter
from eeve_axolotl.version import __version__
from eeve_axolotl.vocabulary import id_count

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOG = logger("tokenizer")


def build(settings: TokenizerSettings) -> dict:
    """Build the extended tokenizer and return its manifest.

    The directory is written beside `output` and moved into place. Same inputs give the same bytes.
    Raises EEVEError for anything a user can put right.
    """
    output = Path(settings.output)
    _check_output(output, settings)
    of = made_of(settings)
    with _work(settings, output) as work:
        learned = _learn(settings, work)
        verified = _verify(settings, learned)
        manifest = {**_manifest(settings, learned, verified), "made_of": known_since(of, made_of(settings))}
        _write(output, settings, learned, verified, manifest)
    return manifest


def check_base(settings: TokenizerSettings) -> None:
    """Raise EEVEError where `build` would stop at the base, or at what is asked of it. Says nothing of a base on the hub."""
    if ":" in settings.base or is_local_path(settings.base):
        _rests_on(settings)


def _rests_on(
    settings: TokenizerSettings,
) -> tuple[PreTrainedTokenizerFast, dict, WordSplitter, Curation]:
    """The base, its JSON, what cuts text into words, and what a person allows: all that can be refused without a corpus."""
    base = bases.load(settings.base, settings.script)
    state = json.loads(base.backend_tokenizer.to_str())
    splitter = word_splitter(state, settings.script)
    if settings.superwords:
        superwords.check(settings.base, state, splitter)
    lists = settings.allow, settings.deny, settings.reject
    return base, state, splitter, Curation.read(splitter, *lists, settings.max_token_length)


def _check_output(output: Path, settings: TokenizerSettings) -> None:
    """Raise EEVEError if a tokenizer cannot be written to `output`, or something else is there."""
    check_writable(output, "output")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if output.is_dir() and holds_a_model(output):
        raise EEVEError(
            f"output {output} has a model in it, so it is not overwritten; choose another directory"
        )
    if not settings.overwrite:
        manifest = read(output / TOKENIZER_MANIFEST, TOKENIZER_FILE)
        since = what_changed(manifest, settings) if manifest else []
        found = f", and since it was built {'; '.join(since)}" if since else ""
        raise EEVEError(f"output {output} exists{found}; choose another directory, or set overwrite: true")
    if not (output / TOKENIZER_MANIFEST).is_file():
        raise EEVEError(
            f"output {output} is not a tokenizer of ours (it has no {TOKENIZER_MANIFEST}), so it is not overwritten; "
            "choose another directory"
        )


@contextmanager
def _work(settings: TokenizerSettings, output: Path) -> Iterator[Path]:
    """A directory of our own for the counts, this build's alone; removed when it succeeds, unless it is to be kept."""
    place = Path(settings.work_directory or output.with_name(f".{output.name}.work"))
    check_writable(place, "work_directory")
    work, marker = place / WORK, place / WORK / WORK_MARKER
    if work.is_dir() and not marker.is_file() and any(work.iterdir()):
        raise EEVEError(f"{work} has files that are not ours; set work_directory to another place")
    work.mkdir(parents=True, exist_ok=True)
    marker.touch()
    with alone(
        marker, f"another `axolotl eeve tokenizer` is at work in {place}; wait for it, or set work_directory"
    ):
        yield work
        if not settings.keep_work:
            shutil.rmtree(work)
    if not settings.work_directory and place.is_dir() and not any(place.iterdir()):
        place.rmdir()


@dataclass(frozen=True)
class _Learned:
    """What the corpus teaches: the new tokens, and what they were learned from."""

    base: PreTrainedTokenizerFast
    shards: Sequence[Shard]
    table: WordTable
    words: int
    """How many distinct words the corpus has; the table's are joined where superwords may lie."""
    min_count: int
    selection: Selection
    rare: dict[str, int]
    """New tokens below the threshold, by why they are in."""
    state: dict
    """The extended tokenizer's JSON."""


@dataclass(frozen=True)
class _Verified:
    """What the tokenizers library, and SentencePiece where the base has it, make of the new tokens."""

    tokens_before: int
    tokens_after: int
    unreachable: int
    sentencepiece: bytes | None
    """The extended SentencePiece model, if there is one that cuts text alike."""


def _learn(settings: TokenizerSettings, work: Path) -> _Learned:
    """Count the corpus's words in `work`, and choose the new tokens."""
    base, state, splitter, curation = _rests_on(settings)
    by_entry = [source.shards() for source in settings.corpus]
    shards = [shard for entry in by_entry for shard in entry]
    domains = [number for number, entry in enumerate(by_entry) for _ in entry]
    table = _count(settings, shards, splitter, work, domains)
    words = table.distinct
    min_count = settings.threshold(table.bytes)
    warn_if_off(settings, table.bytes)
    first_id = id_count(base)
    if holes := first_id - len(base.get_vocab()):
        LOG.info(
            "new ids begin at %s: the base leaves %s ids below that unused", f"{first_id:,}", f"{holes:,}"
        )
    LOG.info(
        "corpus: %s documents, %.1f MB, %s distinct words; tokens seen less than %s times are dropped",
        f"{table.documents:,}", table.bytes / 1e6, f"{table.distinct:,}", f"{min_count:,}",
    )  # fmt: skip
    rules = SelectionRules(
        first_id=first_id,
        new_tokens=settings.new_tokens,
        min_count=min_count,
        intermediate_vocab_size=settings.intermediate_vocab_size,
        max_rounds=settings.max_rounds,
        method=settings.method,
        share_fragments=settings.share_fragments,
        memory_mb=settings.memory_mb,
        curation=curation,
        multiple=settings.round_vocab_to,
        threads=settings.workers,
    )
    selection = select(state, table, rules)
    if settings.superwords:
        over = superwords.Superwords(state, selection.tokens, first_id, splitter)
        joined = over.look(shards, settings.superwords, min_count / table.bytes, settings.memory_mb)
        table = _count(settings, shards, joined, work / "joined", domains, power=1)
        found_over = over.learn(table.weighed or table, settings.superwords, rules.memory_mb)
        LOG.info("%s superwords are candidates too", f"{len(found_over):,}")
        selection = select(state, table, rules, found_over)
    extended = bases.extended_state(state, selection.tokens, first_id)
    found = rare(selection, min_count, splitter.spelling, curation)
    LOG.info("%s", sentence(found, min_count))
    return _Learned(base, shards, table, words, min_count, selection, found, extended)


def _count(
    settings: TokenizerSettings,
    shards: Sequence[Shard],
    splitter: WordSplitter,
    work: Path,
    domains: list[int],
    power: float = POWER,
) -> WordTable:
    """Count the words of `shards` in `work`, each of a domain."""
    with counting(shards, work) as watched:
        return count(
            watched,
            splitter,
            work,
            memory_mb=settings.memory_mb,
            workers=settings.workers,
            engine=settings.engine,
            domains=domains if settings.weigh_words_by == "domain" else None,
            power=power,
        )


def _verify(settings: TokenizerSettings, learned: _Learned) -> _Verified:
    """Count with the real tokenizers what the selection says that they make."""
    base, selection = learned.base.backend_tokenizer, learned.selection
    with Meter("checking with tokenizers", LOG) as meter:
        table = WatchedTable(learned.table, meter, times=2)
        before = count_tokens(json.loads(base.to_str()), table).total()
        counts = count_tokens(learned.state, table)
    if any(counts[token] != count for token, count in selection.counts.items()):
        raise RuntimeError("the selection counted other tokens than the tokenizer makes; please report this")
    model, file = None, bases.sentencepiece_file(settings.base)
    if file is not None:
        with Meter("checking with SentencePiece", LOG) as meter:
            corpus = meter.reading(text for shard in learned.shards for text in shard.texts())
            model = spm.verified(file, base, learned.state, selection.tokens, corpus)
    return _Verified(
        tokens_before=before,
        tokens_after=counts.total(),
        unreachable=len(unreachable(learned.state, selection.tokens)),
        sentencepiece=model,
    )


def _manifest(settings: TokenizerSettings, learned: _Learned, verified: _Verified) -> dict:
    """What the tokenizer is, and what it was made of."""
    base, table, selection = learned.base, learned.table, learned.selection
    return {
        "base": redacted(settings.base),
        "base_sha256": bases.identity(base),
        "base_vocab_size": id_count(base),
        "vocab_size": id_count(base) + len(selection.tokens),
        "settings": redacted(settings.model_dump(exclude=WHERE_AND_HOW)),
        "corpus": {
            "documents": table.documents,
            "bytes": table.bytes,
            "files": table.files,
            "distinct_words": learned.words,
        },
        "min_count": learned.min_count,
        **({"superwords": sum(map(is_superword, selection.tokens))} if settings.superwords else {}),
        "rare": learned.rare,
        "tokens_in_words": {"base": verified.tokens_before, "extended": verified.tokens_after},
        "rounds": selection.rounds,
        "unreachable": verified.unreachable,
        "sentencepiece": verified.sentencepiece is not None,
        "also_changed": sharing(selection.fragments, table.splitter),
        "versions": {"eeve_axolotl": __version__, "tokenizers": version("tokenizers")},
        "counts": selection.counts,
    }


def _write(
    output: Path, settings: TokenizerSettings, learned: _Learned, verified: _Verified, manifest: dict
) -> None:
    """Write the tokenizer, its manifest, and what lies beside them."""
    texts = {"train": learned.shards}
    if settings.held_out:
        texts["held out"] = [shard for source in settings.held_out for shard in source.shards()]
    with replacing(output, is_ours) as directory:
        reloading.write(learned.base, settings.base, learned.state, directory)
        model = directory / SENTENCEPIECE_MODEL
        model.unlink(missing_ok=True)  # the base's, without the new tokens
        if verified.sentencepiece is not None:
            model.write_bytes(verified.sentencepiece)
        may_differ = reloading.may_differ(learned.base, learned.table.splitter, manifest["also_changed"])
        tried = reloading.check(directory, settings.base, learned.base, may_differ)
        LOG.info("loaded again, AutoTokenizer and tokenizers read it as the base: %s texts", f"{tried:,}")
        write_json(directory / TOKENIZER_MANIFEST, {**manifest, "files": files_of(directory)})
        candidate_table.write(
            directory / candidate_table.FILE, learned.selection.candidates, learned.table, learned.shards
        )
        tokenizers = (learned.base.backend_tokenizer, Tokenizer.from_file(str(directory / "tokenizer.json")))
        with Meter("measuring", LOG):
            savings.write(directory / savings.DIRECTORY, *tokenizers, manifest, texts)
