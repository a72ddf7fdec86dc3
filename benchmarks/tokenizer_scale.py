"""A selection over tens of millions of distinct words: its time, rounds and memory.

    python benchmarks/tokenizer_scale.py [--millions 5 50] [--memory-mb 1000] [--threads 2] --directory DIR

No corpus at hand has so many words, so a seeded generator makes them, without text: Hangul syllables, stems, endings and
words are as frequent as their rank (Zipf), and a word is a stem of one to five syllables with up to two endings, as Korean
is written. Each size is selected from in a process of its own, whose peak memory is told. The table is made as counting
makes it, a sorted Parquet file; `memory_mb` bounds the words that the candidates are learned from. Finished sizes are lines
of results/tokenizer_scale.jsonl, and are not made again. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import duckdb
import numpy as np
import pyarrow

from benchmarks.resident import peak_rss_mb

BASE = "mistral_common:tokenizer.model.v1"  # SOLAR's tokenizer
NEW_TOKENS = 8_960
RESULTS = Path(__file__).parent / "results" / "tokenizer_scale.jsonl"
SYLLABLES, STEMS, ENDINGS = 11_172, 4_000_000, 3_000
LONGEST = 9  # syllables of a word: a stem of five, two endings of two
DRAWN = 2_000_000  # words drawn at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[5, 50], help="distinct words")
    parser.add_argument("--memory-mb", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--directory", type=Path, help="where the tables are made")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument(
        "--json", action="store_true", help="accepted for scripts; JSON is always the last line"
    )
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(selected(arguments, arguments.one)))
        return
    if arguments.directory is not None:
        measure(arguments)
    print(json.dumps({f"{line['millions']:g}": line for line in done()}))


def done() -> list[dict]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def measure(arguments) -> None:
    """Each size that is not among the finished ones."""
    asked = {"memory_mb": arguments.memory_mb, "threads": arguments.threads}
    for millions in arguments.millions:
        if any(line["millions"] == millions and line.items() >= asked.items() for line in done()):
            continue
        table_of(arguments.directory, round(millions * 1e6))
        command = [sys.executable, __file__, "--one", str(millions), "--directory", str(arguments.directory)]
        command += ["--memory-mb", str(arguments.memory_mb), "--threads", str(arguments.threads)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        line = {"millions": millions, **asked, **json.loads(printed.splitlines()[-1])}
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        print(line, flush=True)


# --- Words ---


def zipf(number: int, size: int, chance: np.random.Generator) -> np.ndarray:
    """`size` ranks below `number`, each as frequent as one over itself: (size,)."""
    return np.minimum(np.exp(chance.random(size) * np.log(number + 1)).astype(np.int64), number) - 1


class Words:
    """Draws words. A stem or an ending has the same syllables whenever it is drawn."""

    def __init__(self, seed: int = 0):
        self.chance = np.random.default_rng(seed)
        syllables = self.chance.permutation(SYLLABLES).astype(np.uint32) + 0xAC00
        self.stems = self._made(syllables, STEMS, [0.05, 0.45, 0.3, 0.15, 0.05])
        self.endings = self._made(syllables, ENDINGS, [0.5, 0.5])

    def _made(self, syllables: np.ndarray, number: int, lengths: list[float]) -> np.ndarray:
        """(number, longest) of code points, 0 behind the end."""
        longest = len(lengths)
        made = syllables[zipf(SYLLABLES, number * longest, self.chance)].reshape(number, longest)
        length = self.chance.choice(longest, number, p=lengths) + 1
        return np.where(np.arange(longest) < length[:, None], made, 0)

    def draw(self, size: int) -> pyarrow.Array:
        """`size` words, as a SentencePiece vocabulary spells them."""
        stems = self.stems[zipf(STEMS, size, self.chance)]
        ends = [self.endings[zipf(ENDINGS, size, self.chance)] for _ in range(2)]
        many = self.chance.random(size)  # two thirds of the words have an ending, a quarter two
        ends = [
            np.where((many < share)[:, None], end, 0) for end, share in zip(ends, (0.67, 0.25), strict=True)
        ]
        points = np.concatenate([np.full((size, 1), ord("▁")), stems, *ends], axis=1).astype(np.uint32)
        # What stands behind a gap moves up to it: numpy's strings end at the last character that is not 0.
        order = np.argsort(points == 0, axis=1, kind="stable")
        points = np.take_along_axis(points, order, axis=1)
        return pyarrow.array(np.ascontiguousarray(points).view(f"<U{points.shape[1]}")[:, 0])


def table_of(directory: Path, distinct: int) -> Path:
    """A table of `distinct` words with their counts, sorted: drawn until there are so many, and cut at the rarest."""
    path = directory / f"words-{distinct}.parquet"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    parts = directory / f"words-{distinct}.parts"
    parts.mkdir(exist_ok=True)
    database = duckdb.connect(config={"memory_limit": "3GB", "temp_directory": str(parts / "spilled")})
    words, number, found = Words(), 0, 0
    while found < distinct:
        for _ in range(max(1, distinct // DRAWN)):
            drawn = pyarrow.table({"word": words.draw(DRAWN)})  # noqa: F841  # DuckDB finds it by its name
            counted = database.sql("select word, count(*) as count from drawn group by word")
            counted.write_parquet(str(parts / f"{number:04}.parquet"))
            number += 1
        of_all = f"from read_parquet('{parts}/*.parquet')"
        ((found,),) = database.sql(f"select count(distinct word) {of_all}").fetchall()
        print(f"{number * DRAWN:,} words drawn, {found:,} distinct", flush=True)
    merged = database.sql(
        f"""select word, count, count as documents from
        (select word, sum(count)::bigint as count {of_all} group by word order by count desc, word limit {distinct})
        order by word"""
    )
    merged.write_parquet(str(path.with_suffix(".partial")))
    path.with_suffix(".partial").replace(path)
    for each in parts.glob("*.parquet"):
        each.unlink()
    return path


# --- Selecting ---


def selected(arguments, millions: float) -> dict:
    """What the selection of one table took. Run in a process of its own, whose memory is told."""
    from eeve_axolotl.tokenizer import base as bases
    from eeve_axolotl.tokenizer.counting.table import WordTable
    from eeve_axolotl.tokenizer.rules import SelectionRules
    from eeve_axolotl.tokenizer.select import select
    from eeve_axolotl.tokenizer.words import PlainWordSplitter

    state = json.loads(bases.load(BASE).backend_tokenizer.to_str())
    splitter = PlainWordSplitter(state, ["Hangul"])

    def choose(path: Path, tokens: int, intermediate: int):
        table = WordTable(path, splitter, files=1, documents=1, bytes=0)  # of the text there is none
        rules = SelectionRules(
            first_id=32_000,
            new_tokens=tokens,
            min_count=20,
            intermediate_vocab_size=intermediate,
            max_rounds=1_000,
            memory_mb=arguments.memory_mb,
            threads=arguments.threads,
        )
        return table, select(state, table, rules)

    choose(table_of(arguments.directory, 20_000), 50, 1_000)  # libraries and compiled code are loaded
    before = peak_rss_mb()
    began = time.perf_counter()
    table, selection = choose(
        table_of(arguments.directory, round(millions * 1e6)), NEW_TOKENS, intermediate=40_000
    )
    took, peak = time.perf_counter() - began, peak_rss_mb()
    return {
        "distinct_words": table.distinct,
        "learned_from": table.fitting(arguments.memory_mb)[1],
        "table_mb": round(table.path.stat().st_size / 1e6),
        "new_tokens": len(selection.tokens),
        "seconds": round(took, 1),
        "rounds": len(selection.rounds),
        "peak_rss_mb": round(peak),
        "peak_rss_mb_of_libraries": round(before),
    }


if __name__ == "__main__":
    main()
