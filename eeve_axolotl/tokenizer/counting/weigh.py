"""What words weigh where the corpus has several domains, so that a large one does not choose all tokens.

A word weighs the sum, over domains, of (its share of the domain's words) ** POWER * sqrt(words of the domain). The power
takes from what one domain says very often (names, markup, terms), and the root from the domain's size. Both are our choice,
measured on domains that were left out of the corpus (benchmarks/tokenizer_methods.py). Joined words (words/joined.py) get
the power 1: what is longer is rarer, and would weigh more for that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from eeve_axolotl.files import write_json, writing
from eeve_axolotl.tokenizer.counting.merge import adding_up, note_in
from eeve_axolotl.tokenizer.counting.parts import disk_errors

if TYPE_CHECKING:
    import duckdb

POWER = 0.85
# A corpus of fewer words is weighed as if it had more, up to _MOST times as many: whole numbers would be too coarse.
_ENOUGH, _MOST = 40_000_000, 8
_FINE = 1 << 20  # sums of whole numbers are the same in any order


def weigh(
    directory: Path,
    domains: Sequence[Sequence[Path]],
    made_of: object,
    memory_mb: int,
    threads: int,
    power: float = POWER,
) -> tuple[Path, float]:
    """Write the table of weights: the words of all partial counts, sorted, with weights in place of counts.

    Args:
        domains: the files of partial counts of each domain, at least one.
        made_of: what the counts are made of; weights made of the same are left as they are.

    Returns the table's path, and what an occurrence weighs in the mean. Raises EEVEError where memory or disk run out.
    """
    path, note = directory / "weights.parquet", directory / "weights.json"
    with disk_errors(directory), adding_up(directory, memory_mb, threads) as connection:
        counts = [connection.read_parquet([str(file) for file in files]) for files in domains]
        sizes = [_one(partial.aggregate("sum(count)::BIGINT")) for partial in counts]
        scale = min(_MOST, max(1.0, _ENOUGH / sum(sizes)))
        names = [[file.name for file in files] for files in domains]
        wanted = {"made_of": made_of, "domains": names, "rule": [power, scale]}
        if not path.exists() or note_in(note) != wanted:
            note.unlink(missing_ok=True)
            with writing(path) as unfinished:
                _write(counts, sizes, scale, power, unfinished)
            write_json(note, wanted)
    return path, scale


def _write(
    counts: Sequence[duckdb.DuckDBPyRelation],
    sizes: Sequence[int],
    scale: float,
    power: float,
    table: Path,
) -> None:
    """Write the weights of all words to `table`: `counts` and the number of words are given for each domain."""
    weights = []
    for partial, of_domain in zip(counts, sizes, strict=True):
        weight = (
            f"round(pow(sum(count) / {of_domain}::DOUBLE, {power}) * sqrt({of_domain}) * {_FINE})::BIGINT"
        )
        weights.append(partial.aggregate(f"word, {weight} AS weight", "word"))
    of_words = reduce(lambda one, other: one.union(other), weights).aggregate(
        "word, sum(weight) AS weight", "word"
    )
    total = _one(of_words.aggregate("sum(weight)::HUGEINT"))
    whole = f"greatest(1, round(weight * {scale * sum(sizes) / total!r}))::BIGINT"
    of_words.project(f"word, {whole} AS count, 0::BIGINT AS documents").order("word").write_parquet(
        str(table), compression="zstd"
    )


def _one(relation: duckdb.DuckDBPyRelation) -> int:
    """The one number of a relation of one row."""
    number: int = relation.fetchall()[0][0]
    return number
