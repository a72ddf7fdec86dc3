"""What words weigh where the corpus has several domains, so that a large one does not choose all tokens.

A word weighs the sum, over domains, of (its share of the domain's words) ** POWER * sqrt(words of the domain). The power
takes from what one domain says very often (names, markup, terms), and the root from the domain's size. Both are our choice,
measured on domains that were left out of the corpus (benchmarks/tokenizer_methods.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eeve_axolotl.files import read_json_if_there, write_json, writing
from eeve_axolotl.tokenizer.counting.merge import adding_up
from eeve_axolotl.tokenizer.counting.parts import disk_errors

if TYPE_CHECKING:
    import duckdb

POWER = 0.75
# A corpus of fewer words is weighed as if it had more, up to _MOST times as many: whole numbers would be too coarse.
_ENOUGH, _MOST = 40_000_000, 8
_FINE = 1 << 20  # sums of whole numbers are the same in any order


def weigh(
    directory: Path, domains: Sequence[Sequence[Path]], made_of: object, memory_mb: int, threads: int
) -> tuple[Path, float]:
    """Write the table of weights: the words of all partial counts, sorted, with weights in place of counts.

    Args:
        domains: the files of partial counts of each domain, at least one.
        made_of: what the counts are made of; weights made of the same are left as they are.

    Returns the table's path, and what an occurrence weighs in the mean. Raises EEVEError where memory or disk run out.
    """
    path, note = directory / "weights.parquet", directory / "weights.json"
    wanted = {"made_of": made_of, "domains": [[file.name for file in files] for files in domains]}
    found = read_json_if_there(note) if path.exists() else None
    if isinstance(found, dict) and {key: found.get(key) for key in wanted} == wanted:
        return path, float(found["scale"])
    with disk_errors(directory):
        note.unlink(missing_ok=True)
        with writing(path) as unfinished, adding_up(directory, memory_mb, threads) as connection:
            scale = _write(connection, domains, unfinished)
        write_json(note, {**wanted, "scale": scale})
    return path, scale


def _write(connection: duckdb.DuckDBPyConnection, domains: Sequence[Sequence[Path]], table: Path) -> float:
    """Write the weights of all words to `table`; returns what an occurrence weighs in the mean."""
    weights, words = [], 0
    for files in domains:
        partial = connection.read_parquet([str(file) for file in files])
        of_domain = _one(partial.aggregate("sum(count)::BIGINT"))
        words += of_domain
        weight = (
            f"round(pow(sum(count) / {of_domain}::DOUBLE, {POWER}) * sqrt({of_domain}) * {_FINE})::BIGINT"
        )
        weights.append(partial.aggregate(f"word, {weight} AS weight", "word"))
    of_words = reduce(lambda one, other: one.union(other), weights).aggregate(
        "word, sum(weight) AS weight", "word"
    )
    total = _one(of_words.aggregate("sum(weight)::DOUBLE"))
    scale = min(_MOST, max(1.0, _ENOUGH / words))
    whole = f"greatest(1, round(weight * {scale * words / total!r}))::BIGINT"
    of_words.project(f"word, {whole} AS count, 0::BIGINT AS documents").order("word").write_parquet(
        str(table), compression="zstd"
    )
    return scale


def _one(relation: duckdb.DuckDBPyRelation) -> Any:
    """The one value of a relation of one row."""
    return relation.fetchall()[0][0]
