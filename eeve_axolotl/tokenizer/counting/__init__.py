"""From files to a table of distinct words on disk, in bounded memory.

Each file, or each part of a large one, is counted by itself: words go into a hash table, and when that
has grown to its share of the memory, into a Parquet file of partial counts. A part that is finished leaves
a mark, so that a run that was killed goes on after it. In the end DuckDB, which keeps to a memory limit,
adds the partial counts up.

parts.py         what is counted by itself, and the marks of what is finished
workers.py       the processes that count parts, here or on a Ray cluster
word_counter.py  one part's words, from text to files of partial counts
merge.py         the partial counts, added up
weigh.py         what words weigh where the corpus has several domains
table.py         the table of words, as the rest of the room reads it

What lies in the directory of the counts:

    words/<part>-<n>.parquet   partial counts (word, count, documents), sorted by word
    marks/<part>.json          a finished part: its documents, bytes and files
    words.parquet              the table: every word of the corpus once, sorted
    words.json                 what it was merged from
    weights.parquet, .json     the same words with their weights, where they are weighed
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer.counting.merge import identity, merge
from eeve_axolotl.tokenizer.counting.parts import Mark, divide, resume
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.counting.weigh import POWER, weigh
from eeve_axolotl.tokenizer.counting.workers import ENGINES, worth_starting
from eeve_axolotl.tokenizer.words.base import WordSplitter

__all__ = ["WordTable", "count"]

LOG = logger("tokenizer")


def count(
    shards: Sequence[Shard],
    splitter: WordSplitter,
    directory: Path,
    *,
    memory_mb: int = 4_000,
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    domains: Sequence[int] | None = None,
    power: float = POWER,
) -> WordTable:
    """Count the words of `shards` in `directory`, after what is finished there already.

    Args:
        shards: the corpus; one that is named twice counts twice.
        splitter: what a word is.
        directory: made if it is not there. Counts of other text or settings in it are removed.
        memory_mb: in MB, for the counts of all processes together, and then for the merge.
        workers: how many processes count at once. Here they are fewer if there is too little text for so many.
        engine: `local`, or `ray` for the cluster that Ray finds (RAY_ADDRESS; else it starts one here).
            Its machines must share `directory` and the corpus.
        domains: a number for each shard's domain, if words are to be weighed by domain. With one alone they are not.
        power: of a word's share of its domain, in its weight.

    Raises EEVEError for what the files raise, a full disk, or a corpus without a word of the scripts.
    """
    sizes = [shard.size() for shard in shards]
    if engine == "local":
        workers = worth_starting(sizes, workers)
    parts = divide(shards, sizes, splitter.digest, workers)
    marks = resume(directory, parts)
    if marks:
        LOG.info("%d of %d parts of the corpus are counted already", len(marks), len(parts))
    left = [part for part in parts if part.id not in marks]
    each = memory_mb * 1_000_000 // max(1, min(workers, len(left)))
    started = time.monotonic()
    for mark in ENGINES[engine](left, splitter, directory, each, workers):
        marks[mark.part] = mark
        LOG.info(
            "counted %s: %s documents, %.1f MB (part %d of %d; %.0f s)",
            mark.file, f"{mark.documents:,}", mark.bytes / 1e6, len(marks), len(parts), time.monotonic() - started,
        )  # fmt: skip
    in_order = [marks[part.id] for part in parts]
    of_corpus = {
        "files": len(shards),
        "documents": sum(mark.documents for mark in marks.values()),
        "bytes": sum(mark.bytes for mark in marks.values()),
    }
    table = WordTable(merge(directory, in_order, memory_mb, threads=workers), splitter, **of_corpus)
    if not table.distinct:
        raise EEVEError(
            f"the corpus has no text in {' or '.join(splitter.scripts)}; correct `corpus` or `script`"
        )
    if domains is not None and len(set(domains)) > 1:
        by_shard = {id(shard): domain for shard, domain in zip(shards, domains, strict=True)}
        of_parts = [by_shard[id(part.shard)] for part in parts]
        path, table.scale = _weigh(directory, in_order, of_parts, memory_mb, workers, power)
        table.weighed = WordTable(path, splitter, **of_corpus)
    return table


def _weigh(
    directory: Path,
    marks: Sequence[Mark],
    domains: Sequence[int],
    memory_mb: int,
    threads: int,
    power: float,
) -> tuple[Path, float]:
    """Weigh the words of `marks`, each of which has a domain; as `weigh` returns it."""
    files: dict[int, list[Path]] = {}
    for domain, mark in zip(domains, marks, strict=True):
        files.setdefault(domain, []).extend(directory / "words" / name for name in mark.parquet)
    with_words = [files[domain] for domain in sorted(files) if files[domain]]
    return weigh(directory, with_words, identity(marks), memory_mb, threads, power)
