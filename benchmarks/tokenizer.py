"""Measures `axolotl eeve tokenizer` on real Korean: how short text becomes, whether it is exact, how fast it is.

    python benchmarks/tokenizer.py [--quick] [--corpora DIR] [--parts quality,speed,memory,budget]

Builds the card's 8,960 tokens from train_ko.jsonl.gz without a held-out twentieth of its documents (every
20th, from the 8th), and prints one JSON object as its last line. `--quick` takes a tenth of the documents.
Speeds that are compared are taken in turn in one run, medians of five; all processes and threads are those
of this machine. The counting pass reads and parses a gzip file, and writes and sorts its table;
`encode_batch` has its texts in memory. Needs the corpora that EEVE_CORPORA names.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import duckdb
import numpy as np
import regex
import tokenizers
from tokenizers import AddedToken, Tokenizer

from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.candidate_counts import CandidateCounter
from eeve_axolotl.tokenizer.counting import count
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.words import PlainWordSplitter

ROOT = Path(__file__).resolve().parent.parent
BASE = "mistral_common:tokenizer.model.v1"  # SOLAR's tokenizer
NEW_TOKENS = 8_960
TABLE_1 = "안녕하세요, 오늘은 날씨가 좋네요."
WORKERS = os.cpu_count() or 1
PARTS = ("quality", "speed", "memory", "budget")


def read(path: Path) -> list[str]:
    """The texts of a JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def write(path: Path, texts: list[str]) -> Path:
    """`texts` as JSON lines, gzip at its fastest level."""
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as lines:
        lines.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return path


def strings(value) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


def kobest(directory: Path) -> list[str]:
    """Every Korean field of KoBEST's dev sets."""
    records = (json.loads(line) for file in sorted(directory.glob("*.jsonl")) for line in file.open("rb"))
    return [text for record in records for text in strings(record) if regex.search(r"\p{Hangul}", text)]


def tokens(tokenizer: Tokenizer, texts: list[str]) -> int:
    """How many tokens `texts` take."""
    return sum(len(each.ids) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


def same(one: Tokenizer, other: Tokenizer, texts: list[str]) -> bool:
    """Whether both make the same tokens of each text."""
    encoded = (each.encode_batch_fast(texts, add_special_tokens=False) for each in (one, other))
    return all(a.ids == b.ids for a, b in zip(*encoded, strict=True))


def seconds(*functions: Callable[[], object], times: int = 5) -> list[float]:
    """The median time of each function, called in turn."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(times):
        for function, list_ in zip(functions, taken, strict=True):
            start = time.perf_counter()
            function()
            list_.append(time.perf_counter() - start)
    return [statistics.median(each) for each in taken]


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def build_settings(corpus: Path, output: Path, new_tokens: int | None = NEW_TOKENS) -> TokenizerSettings:
    """The card's defaults for this corpus."""
    return TokenizerSettings(
        base=BASE, output=str(output), corpus=[{"path": str(corpus)}], new_tokens=new_tokens, workers=WORKERS,
        work_directory=str(output.with_name("work")), keep_work=True,
    )  # fmt: skip


def quality(train: list[str], held_out: list[str], corpora: Path, work: Path) -> tuple[dict, Path]:
    """Builds the tokenizer; returns what it is worth, and where it is."""
    corpus, output = write(work / "train.jsonl.gz", train), work / "tokenizer"
    start = time.perf_counter()
    manifest = build(build_settings(corpus, output))
    elapsed = time.perf_counter() - start
    base, extended = base_and_extended(output)
    sentences, english = kobest(corpora / "kobest_dev"), read(corpora / "train_en.jsonl.gz")
    single = {token for token in manifest["counts"] if len(token) == 1}
    few = [token for token, n in manifest["counts"].items() if n < manifest["min_count"]]
    last = manifest["rounds"][-1]
    return {
        "new_tokens": manifest["vocab_size"] - manifest["base_vocab_size"],
        "letters": len(single),
        "min_count": manifest["min_count"],
        "kobest_ratio": round(tokens(base, sentences) / tokens(extended, sentences), 4),
        "heldout_ratio": round(tokens(base, held_out) / tokens(extended, held_out), 4),
        "train_ratio": round(tokens(base, train) / tokens(extended, train), 4),
        "table1_tokens": len(extended.encode(TABLE_1, add_special_tokens=False).ids),
        "english_identical": same(base, extended, english),
        "unreachable": manifest["unreachable"],
        # A letter stays while the corpus has it often enough, alone in a token or not.
        "below_threshold": len(set(few) - single),
        "letters_only_inside_tokens": len(set(few) & single),
        "rounds": last["round"],
        "dropped_in_last_round": last["dropped"],
        "heldout_tokens_are": kinds(extended, held_out, set(manifest["counts"])),
        "sentencepiece": as_sentencepiece(output, base, extended, [*sentences, *held_out, *english]),
        "build_seconds": round(elapsed, 1),
    }, output  # fmt: skip


def kinds(tokenizer: Tokenizer, texts: list[str], new: set[str]) -> dict[str, float]:
    """What the tokens of `texts` are, in per cent."""
    found: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        found.update(encoding.tokens)
    shares: Counter[str] = Counter()
    for token, n in found.items():
        letters = token.lstrip("▁")
        if token in new:
            kind = "new, one letter" if len(letters) == 1 else "new, several letters"
        elif regex.fullmatch("<0x..>", token):
            kind = "byte, line ends included"
        elif not letters:
            kind = "space alone"
        else:
            scripts = {"Hangul": "Hangul of the base", "Latin": "Latin", "N": "digits"}
            kind = next(
                (k for p, k in scripts.items() if regex.search(rf"\p{{{p}}}", letters)), "marks and others"
            )
        shares[kind] += n
    return {kind: round(100 * n / shares.total(), 1) for kind, n in shares.most_common()}


def as_sentencepiece(
    output: Path, base: Tokenizer, extended: Tokenizer, texts: list[str]
) -> dict[str, int] | None:
    """How many of `texts` the written SentencePiece model segments otherwise than the fast tokenizer.

    Those of which the base's own two make different tokens are counted apart. None if none was written.
    """
    from sentencepiece import SentencePieceProcessor

    if not (output / "tokenizer.model").exists():
        return None
    same = []
    for fast, file in ((base, bases.sentencepiece_file(BASE)), (extended, output / "tokenizer.model")):
        slow = SentencePieceProcessor(model_file=str(file)).encode(texts)
        ids = [each.ids for each in fast.encode_batch_fast(texts, add_special_tokens=False)]
        same.append([a == b for a, b in zip(ids, slow, strict=True)])
    return {
        "texts": len(texts),
        "base_differs": same[0].count(False),
        "only_extended_differs": sum(a and not b for a, b in zip(*same, strict=True)),
    }


def budget(held_out: list[str], corpora: Path, work: Path) -> dict:
    """What other numbers of new tokens save; the corpus is the one that `quality` wrote and counted."""
    sentences, found = kobest(corpora / "kobest_dev"), {}
    for new_tokens in (2 * NEW_TOKENS, None):
        output = work / f"tokenizer-{new_tokens}"
        manifest = build(build_settings(work / "train.jsonl.gz", output, new_tokens))
        base, extended = base_and_extended(output)
        ratios = [tokens(base, texts) / tokens(extended, texts) for texts in (sentences, held_out)]
        found[len(manifest["counts"])] = [round(ratio, 3) for ratio in ratios]
        say(f"{len(manifest['counts']):,} new tokens: {ratios[0]:.3f} on KoBEST, {ratios[1]:.3f} held out")
    return {"ratios_by_budget": found}


WORDS_BY_DUCKDB = r"""
SELECT count(*) FROM (
    SELECT word, count(*) AS times
    FROM (SELECT unnest(regexp_extract_all(text, ' ?\p{Hangul}+')) AS word FROM read_json(?, columns = {text: 'VARCHAR'}))
    GROUP BY word
)
"""
"""The nearest that a query comes to counting: Hangul runs with the space before them, by a general engine."""


def base_and_extended(output: Path) -> tuple[Tokenizer, Tokenizer]:
    """The base and the extended tokenizer, as the library has them."""
    return bases.load(BASE).backend_tokenizer, Tokenizer.from_file(str(output / "tokenizer.json"))


def speed(train: list[str], output: Path, work: Path) -> dict:
    """Counting and selecting against encoding the text; encoding with the new tokens against the base."""
    base, extended = base_and_extended(output)
    state = json.loads(base.to_str())
    splitter = PlainWordSplitter(state, ["Hangul"])
    corpus = write(work / "speed.jsonl.gz", train)
    size = sum(len(text.encode()) for text in train)
    new = list(json.loads((output / "eeve_tokenizer.json").read_text(encoding="utf-8"))["counts"])

    def count_corpus() -> None:
        with tempfile.TemporaryDirectory(dir=work) as directory:
            count(Source(path=str(corpus)).shards(), splitter, Path(directory))

    def query_corpus() -> None:
        with duckdb.connect(config={"threads": WORKERS, "temp_directory": str(work / "duckdb")}) as database:
            found = database.execute(WORDS_BY_DUCKDB, [str(corpus)]).fetchone()
            assert found and found[0] > 1_000

    count_corpus()  # compiled code is loaded
    began = time.process_time()
    count_corpus()
    cpu = time.process_time() - began
    counting, by_duckdb, encoding, with_base, fast = seconds(
        count_corpus,
        query_corpus,
        lambda: extended.encode_batch(train),
        lambda: base.encode_batch(train),
        lambda: base.encode_batch_fast(train),
    )
    say(f"counting {size / counting / 1e6:.1f} MB/s, base's encode_batch {size / with_base / 1e6:.1f} MB/s")
    say(f"DuckDB {duckdb.__version__}: {size / by_duckdb / 1e6:.1f} MB/s, for words alone")

    growth = {}
    for part in (16, 4, 1):
        some = train[::part]
        path = write(work / f"speed{part}.jsonl.gz", some)
        table = count(Source(path=str(path)).shards(), splitter, work / f"counts{part}", workers=1)
        counter = CandidateCounter(state, new)
        choices = [np.arange(len(new)) % 5 != n for n in range(5)]
        counter.count(table, choices[0], WORKERS)

        def rounds(counter=counter, table=table, choices=choices) -> None:
            for choice in choices:
                counter.count(table, choice, WORKERS)

        def encodings(some=some) -> None:
            for _ in range(5):
                extended.encode_batch_fast(some, add_special_tokens=False)

        selecting, again = seconds(rounds, encodings)
        growth[f"1/{part}"] = round(again / selecting, 2)
        say(f"five rounds {selecting:.2f} s over {table.distinct:,} words; encoding five times {again:.2f} s")

    crude = Tokenizer.from_str(base.to_str())
    crude.add_tokens([AddedToken(token.replace("▁", " "), normalized=False) for token in new])
    some = train[: max(1, len(train) // 20)]
    crudely, ours = seconds(lambda: crude.encode_batch(some), lambda: extended.encode_batch(some))
    return {
        "corpus_mb": round(size / 1e6, 1),
        "distinct_words": table.distinct,
        "threads": WORKERS,
        "counting_mb_s": round(size / counting / 1e6, 2),
        "encode_batch_mb_s": round(size / with_base / 1e6, 2),
        "encode_batch_fast_mb_s": round(size / fast / 1e6, 2),
        "duckdb_mb_s": round(size / by_duckdb / 1e6, 2),
        "counting_speedup": round(with_base / counting, 2),
        "counting_speedup_to_duckdb": round(by_duckdb / counting, 2),
        "versions": {each.__name__: each.__version__ for each in (tokenizers, duckdb)},
        "counting_speedup_to_encode_batch_fast": round(fast / counting, 2),
        "counting_mb_per_cpu_second": round(size / cpu / 1e6, 2),
        # If every core counts as one does here; the merge of the partial counts is not in it.
        "projected_minutes_to_count_100_gb_on_64_cores": round(100e9 / (size / cpu) / 64 / 60, 1),
        "selection_seconds": round(selecting, 3),
        "selection_speedup": round(again / selecting, 2),
        "selection_speedup_by_share_of_corpus": growth,
        "encode_speed_ratio": round(with_base / encoding, 3),
        "add_tokens_speed_ratio": round(crudely / ours, 2),
    }  # fmt: skip


_MEASURED = """
import json, sys
from pathlib import Path
from benchmarks.resident import peak_rss_mb
from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer.counting import count
from eeve_axolotl.tokenizer.words import PlainWordSplitter
path, times, base, memory, work = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
state = json.loads(bases.load(base).backend_tokenizer.to_str())
splitter = PlainWordSplitter(state, ["Hangul"])
for name in ("a", "b"):  # so little that only libraries and compiled code are loaded
    (Path(work) / f"{name}.txt").write_text("한국어")
count(Source(path=f"{work}/*.txt").shards(), splitter, Path(work) / "little", memory_mb=memory)
before = peak_rss_mb()
count(Source(path=path).shards() * times, splitter, Path(work) / "all", memory_mb=memory)
print(before, peak_rss_mb())
"""


def memory(corpus: Path, work: Path, limit_mb: int = 100) -> dict:
    """Peak memory of counting the corpus once, 4 and 16 times under a limit, each in a process of its own."""
    peaks = []
    for times in (1, 4, 16):
        with tempfile.TemporaryDirectory(dir=work) as directory:
            command = [
                sys.executable,
                "-c",
                _MEASURED,
                str(corpus),
                str(times),
                BASE,
                str(limit_mb),
                directory,
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        before, peak = map(float, done.stdout.split()[-2:])
        peaks.append(round(peak))
        say(f"{times}x the corpus, memory_mb {limit_mb}: peak {peaks[-1]} MB, {before:.0f} of it libraries")
    return {"memory_mb": limit_mb, "peak_rss_mb": peaks, "peak_rss_mb_of_libraries": round(before)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the documents")
    parser.add_argument(
        "--json", action="store_true", help="accepted for scripts; JSON is always the last line"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; all unless given")
    corpora = Path(os.environ.get("EEVE_CORPORA", ROOT.parent / "shared" / "corpora"))
    parser.add_argument("--corpora", type=Path, default=corpora)
    args = parser.parse_args()
    parts = args.parts.split(",")
    if set(parts) - set(PARTS):
        parser.error(f"--parts takes {', '.join(PARTS)}")
    documents = read(args.corpora / "train_ko.jsonl.gz")
    if args.quick:
        documents = documents[::10]
    held_out = documents[7::20]
    train = [text for n, text in enumerate(documents) if n % 20 != 7]
    say(f"{len(train):,} documents to build from, {len(held_out):,} held out")
    result: dict = {"documents": len(documents), "quick": args.quick}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        found, output = quality(train, held_out, args.corpora, work)
        say(f"built: {found}")
        result |= found
        if "speed" in parts:
            result |= speed(train, output, work)
        if "memory" in parts:
            result |= memory(work / "train.jsonl.gz", work)
        if "budget" in parts:
            result |= budget(held_out, args.corpora, work)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
