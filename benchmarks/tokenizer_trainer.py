"""What a word takes in the tokenizers library's trainer: by its letters, how many words there are, and the threads.

    python benchmarks/tokenizer_trainer.py --directory DIR

Candidates are learned from as many words as the estimate in eeve_axolotl/tokenizer/counting/table.py lets into `memory_mb`;
here it stands beside what is taken. The words are those of tokenizer_scale.py that occur at least twice among its 5 million,
some of them as they are, some joined two and two. Each line is a process of its own. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow
from pyarrow import compute, parquet

from benchmarks.resident import peak_rss_mb
from benchmarks.tokenizer_scale import table_of

DISTINCT = 5_000_000
VOCABULARY = 40_000
CASES = [
    (300_000, 1, 2),
    (300_000, 1, 16),
    (300_000, 2, 2),
    (300_000, 2, 16),
    (700_000, 1, 2),
    (700_000, 1, 16),
]
"""Words, of how many each is joined, and threads."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, required=True, help="where the table of words is made")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument(
        "--json", action="store_true", help="accepted for scripts; JSON is always the last line"
    )
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(trained(table_of(arguments.directory, DISTINCT), *arguments.one)))
        return
    table_of(arguments.directory, DISTINCT)
    lines = []
    for words, joined, threads in CASES:
        command = [sys.executable, __file__, "--directory", str(arguments.directory)]
        command += ["--one", str(words), str(joined)]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        lines.append({"threads": threads, **json.loads(printed.stdout.splitlines()[-1])})
        print(lines[-1], flush=True)
    print(json.dumps(lines))


def trained(table: Path, number: int, joined: int) -> dict:
    """Train on `number` words, each of `joined` words of the table."""
    from eeve_axolotl.tokenizer import intermediate
    from eeve_axolotl.tokenizer.counting.table import LETTER_BYTES, WORD_BYTES

    chance = np.random.default_rng(0)
    with parquet.ParquetFile(table, pre_buffer=False) as file:
        batches = file.iter_batches(columns=["word", "count"])
        repeated = [batch.filter(compute.greater_equal(batch["count"], 2)) for batch in batches]
    rows = pyarrow.Table.from_batches(repeated)
    rows = rows.take(np.sort(chance.permutation(len(rows))[:number]))
    words, counts = rows["word"].to_pylist(), rows["count"].to_pylist()
    behind = [chance.permutation(len(words)) for _ in range(joined - 1)]
    letters = joined * sum(map(len, words)) / len(words) - (joined - 1)

    def pairs() -> Iterator[tuple[str, int]]:
        for n, (word, count) in enumerate(zip(words, counts, strict=True)):
            yield word + "".join(words[other[n]][1:] for other in behind), count

    before = peak_rss_mb()
    intermediate.train(pairs(), VOCABULARY, len(words))
    taken = (peak_rss_mb() - before) * 2**20 / len(words)
    return {
        "words": len(words),
        "letters": round(letters, 1),
        "bytes_a_word": round(taken),
        "estimate": round(WORD_BYTES + LETTER_BYTES * letters),
    }


if __name__ == "__main__":
    main()
