"""What `axolotl eeve corpus` gives and costs on real text: rare new tokens, shares, throughput, memory.

    python benchmarks/corpus.py [--json] [--tokenizer DIR] [--sizes 1 4 16] [--part 0.1]

The tokenizer is SOLAR's with 8,960 tokens that `axolotl eeve tokenizer` finds in `train_ko.jsonl.gz`, made first unless
one is given. Half of the corpus is chosen three times: at random, by the density rule, by coverage. For 4x and 16x,
each further copy of a document has the words of its lines shuffled, so that it is no duplicate. Each run is a process
of its own with one worker; one on a hundredth of the documents goes before, so that no run waits for code to be compiled.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.resident import peak_rss_mb

ROOT = Path(__file__).resolve().parent.parent
CORPORA = Path(os.environ.get("EEVE_CORPORA", ROOT.parent / "shared" / "corpora"))
SHARES = {"korean": 0.6, "english": 0.28, "parallel": 0.12}
RULES = ("natural", "density", "coverage")


def records(name: str) -> Iterator[dict]:
    """The records of a group of ../shared/corpora."""
    if name == "parallel":
        with gzip.open(CORPORA / "parallel_pydocs_en_ko.tsv.gz", "rt", encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return
    with gzip.open(CORPORA / f"train_{name[:2] if name == 'english' else 'ko'}.jsonl.gz", "rt") as file:
        for line in file:
            yield {"text": json.loads(line)["text"]}


def make_tokenizer(directory: Path) -> str:
    """SOLAR's tokenizer, extended with the Korean text."""
    from eeve_axolotl.tokenizer.build import build
    from eeve_axolotl.tokenizer.settings import TokenizerSettings

    wanted = {
        "base": "mistral_common:tokenizer.model.v1",
        "output": str(directory),
        "corpus": [{"path": str(CORPORA / "train_ko.jsonl.gz")}],
        "workers": os.cpu_count() or 1,
    }
    build(TokenizerSettings(**wanted))
    return str(directory)


def shuffled(text: str, draw: random.Random) -> str:
    """`text` with the words of each line in another order."""
    lines = [line.split(" ") for line in text.split("\n")]
    for words in lines:
        draw.shuffle(words)
    return "\n".join(" ".join(words) for words in lines)


def write_inputs(directory: Path, size: int, part: float) -> int:
    """Write `size` times the share `part` of the corpus as JSON lines, a file per copy; return its bytes of text."""
    total = 0
    for name in SHARES:
        (directory / name).mkdir(parents=True, exist_ok=True)
        for copy in range(size):
            draw = random.Random(0)
            order = random.Random(f"{name} {copy}")
            with open(directory / name / f"{copy:02d}.jsonl", "w", encoding="utf-8") as file:
                for record in records(name):
                    if draw.random() >= part:
                        continue
                    if copy:
                        record = {key: shuffled(text, order) for key, text in record.items()}
                    total += sum(len(text.encode()) for text in record.values())
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return total


def settings(directory: Path, tokenizer: str, rule: str) -> dict:
    """The corpus YAML of a run that chooses half by `rule`."""

    def source(name: str) -> list[dict]:
        return [{"path": str(directory / name)}]

    mix = {
        "korean": {"language": "ko", "rule": rule, "sources": source("korean")},
        "english": {"language": "en", "sources": source("english")},
        "parallel": {"template": "{en}\n{ko}", "sources": source("parallel")},
    }
    return {
        "tokenizer": tokenizer,
        "output": str(directory / rule),
        "work": str(directory / "work"),
        "mix": {name: {**group, "share": SHARES[name]} for name, group in mix.items()},
        "budget": {"share": 0.5},
    }


def build(wanted: dict) -> dict:
    """Run it in a process of its own; return its seconds, of CPU time too, and its peak of resident memory in MB."""
    ran = subprocess.run(
        [sys.executable, __file__, "--build"],
        input=json.dumps(wanted),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def build_here() -> None:
    """The process of `build`."""
    from eeve_axolotl.corpus import build as chain
    from eeve_axolotl.corpus.settings import CorpusSettings

    steps, run = {}, chain._run

    def timed(executor, folder: Path, tasks: int) -> None:
        begin = time.process_time()
        run(executor, folder, tasks)
        steps[folder.name.rsplit("-", 1)[0]] = round(time.process_time() - begin, 2)

    chain._run = timed
    wanted, begin, started = CorpusSettings(**json.load(sys.stdin)), time.perf_counter(), time.process_time()
    chain.build(wanted)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begin,
                "cpu_seconds": used.ru_utime + used.ru_stime,
                "cpu_seconds_of_the_chain": time.process_time() - started,
                "cpu_seconds_of_steps": steps,
                "peak_rss_mb": peak_rss_mb(),
            }
        )
    )


def rare(output: Path) -> tuple[int, int, int]:
    """Of the rarest tenth of new tokens that the corpus has: how many, their occurrences in it, and in the choice."""
    import pyarrow.parquet as pq

    table = pq.read_table(output / "tokens.parquet", columns=["in_corpus", "chosen"])
    before, after = table["in_corpus"].to_numpy(), table["chosen"].to_numpy()
    there = np.flatnonzero(before)
    rarest = there[np.argsort(before[there], kind="stable")[: max(len(there) // 10, 1)]]
    return len(rarest), int(before[rarest].sum()), int(after[rarest].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", help="directory of an extended tokenizer; made if left out")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16], help="times the corpus")
    parser.add_argument(
        "--part", type=float, default=1.0, help="share of the documents to take as the corpus"
    )
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        return build_here()
    speed, cpu, memory, result = {}, {}, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = args.tokenizer or make_tokenizer(Path(temporary) / "tokenizer")
        write_inputs(Path(temporary) / "first", 1, 0.01)
        build(settings(Path(temporary) / "first", tokenizer, "coverage"))
        for size in args.sizes:
            directory = Path(temporary) / str(size)
            megabytes = write_inputs(directory, size, args.part) / 1e6
            ran = build(settings(directory, tokenizer, "coverage"))
            speed[size], memory[size] = megabytes / ran["seconds"], ran["peak_rss_mb"]
            cpu[size] = megabytes / ran["cpu_seconds"]
            print(
                f"{size}x: {megabytes:.0f} MB, {ran['seconds']:.0f} s, {speed[size]:.2f} MB/s "
                f"({cpu[size]:.2f} per second of CPU time), peak {memory[size]:.0f} MB",
                flush=True,
            )
            print(
                f"CPU seconds: {ran['cpu_seconds_of_the_chain']:.1f}, {ran['cpu_seconds_of_steps']}",
                flush=True,
            )
            if size == args.sizes[0]:
                for rule in RULES[:2]:
                    build(settings(directory, tokenizer, rule))
                result = compare(directory)
    if args.json:
        first = args.sizes[0]
        result |= {
            "mb_per_second_per_core": round(speed[first], 3),
            "mb_per_cpu_second": {f"{size}x": round(value, 3) for size, value in cpu.items()},
            "peak_rss_mb": {f"{size}x": round(value) for size, value in memory.items()},
            "part": args.part,
        }
        print(json.dumps(result))


def compare(directory: Path) -> dict:
    """The three choices of half the corpus."""
    import pyarrow.parquet as pq

    found = {rule: rare(directory / rule) for rule in RULES}
    number, there, _ = found["coverage"]
    for rule in RULES:
        print(f"{rule:9} {found[rule][2]:,} of {there:,} occurrences of the rarest {number:,} new tokens")
    manifest = json.loads((directory / "coverage" / "eeve_corpus.json").read_text(encoding="utf-8"))
    groups = manifest["groups"]
    status = pq.read_table(directory / "coverage" / "tokens.parquet", columns=["status"])[
        "status"
    ].to_pylist()
    return {
        "rare_gain_over_random": round(found["coverage"][2] / found["natural"][2], 3),
        "rare_gain_over_density": round(found["coverage"][2] / found["density"][2], 3),
        "rare_tokens": {rule: found[rule][2] for rule in RULES},
        "tokens": {"new": len(status), **{name: status.count(name) for name in sorted(set(status))}},
        "target": groups["korean"]["target"],
        "largest_share_error": max(abs(entry["share"] - entry["asked"]) for entry in groups.values()),
        "shares": {name: [entry["asked"], round(entry["share"], 4)] for name, entry in groups.items()},
        "natural_share": round(groups["korean"]["natural_share"], 3),
    }


if __name__ == "__main__":
    main()
