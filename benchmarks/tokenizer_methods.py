"""The two ways to find new tokens, `eeve` and `continued`, side by side on text that neither has seen.

    python benchmarks/tokenizer_methods.py [--base mistral_common:tekken_240911.json]

Trains on the first --mb of train_ko, measures on the next 2 MB of it and on every Korean field of the KoBEST
dev sets. Prints a Markdown table.

    python benchmarks/tokenizer_methods.py --json [--set KEY=VALUE ...] [--results DIR] [--only SOURCE ...]

Leaves one source of train_ko out after the other, builds from the rest, and measures on it: our tokenizer and a rival made
with SentencePiece (tokenizer_left_out.py says how, and what a ratio is). The last line is a JSON object:
{"ours": {SOURCE: ratio, ..., "mean": ratio}, "rival": {the same}}. With --results, a run that follows a killed one goes on
after the last line that it wrote there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import yaml
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tokenizer_left_out as left_out
from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings

CORPORA = Path(os.environ.get("EEVE_CORPORA", Path(__file__).resolve().parents[2] / "shared" / "corpora"))


def documents(megabytes: list[float]) -> list[list[str]]:
    """Documents of train_ko in consecutive parts of so many MB."""
    parts: list[list[str]] = []
    with gzip.open(CORPORA / "train_ko.jsonl.gz", "rt", encoding="utf-8") as lines:
        for size in megabytes:
            part, length = [], 0
            while length < size * 1e6 and (line := lines.readline()):
                part.append(json.loads(line)["text"])
                length += len(part[-1].encode())
            parts.append(part)
    return parts


def kobest() -> list[str]:
    """Every Korean field of the KoBEST dev sets."""
    texts = []
    for file in sorted((CORPORA / "kobest_dev").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            for key, value in json.loads(line).items():
                if key not in ("task", "id", "answer"):
                    texts += value if isinstance(value, list) else [str(value)]
    return texts


def tokens(tokenizer, texts: list[str]) -> int:
    """How many tokens `texts` take."""
    return sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])


def leave_one_out(options: argparse.Namespace) -> None:
    """Build without each source in turn, print a ratio for each as it comes, and the JSON object last."""
    sources = left_out.by_source(CORPORA / "train_ko.jsonl.gz")
    keys = {key: yaml.safe_load(value) for key, _, value in (each.partition("=") for each in options.set)}
    place = Path(options.results or tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    file = place / "left_out.jsonl"
    found: dict[tuple[str, str], float] = {}
    asked = {"base": options.base, "new_tokens": options.new_tokens}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            # Our keys change nothing in the rival.
            if row["asked"] == {**asked, "keys": {} if row["method"] == "rival" else keys}:
                found[row["method"], row["source"]] = row["ratio"]
    base = bases.load(options.base).backend_tokenizer
    chosen = options.only or list(sources)
    for source in chosen:
        before = left_out.tokens(base, sources[source])
        rest = {name: texts for name, texts in sources.items() if name != source}
        for method, made in left_out.METHODS.items():
            if (method, source) in found:
                continue
            with tempfile.TemporaryDirectory() as work:
                tokenizer = made(options.base, rest, options.new_tokens, keys, Path(work))
            ratio = left_out.tokens(tokenizer, sources[source]) / before
            found[method, source] = ratio
            row = {
                "method": method,
                "source": source,
                "ratio": ratio,
                "new_tokens": tokenizer.get_vocab_size() - base.get_vocab_size(),
                "asked": {**asked, "keys": {} if method == "rival" else keys},
            }
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    print(json.dumps({m: left_out.with_mean({s: found[m, s] for s in chosen}) for m in left_out.METHODS}))


def main() -> None:
    """Build both, print what they save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="mistral_common:tokenizer.model.v1")
    parser.add_argument("--mb", type=float, default=10)
    parser.add_argument("--new-tokens", type=int, default=8960)
    parser.add_argument("--json", action="store_true", help="leave one source out; the last line is JSON")
    parser.add_argument(
        "--set",
        nargs="*",
        default=["weigh_words_by=domain"],
        help="with --json: keys of the tokenizer YAML for ours; words are weighed by domain unless given",
    )
    parser.add_argument("--only", nargs="+", help="with --json: the sources to leave out")
    parser.add_argument("--results", help="with --json: a directory for the lines of what is finished")
    options = parser.parse_args()
    if options.json:
        leave_one_out(options)
        return
    seen, unseen = documents([options.mb, 2])
    base, sentences = bases.load(options.base), kobest()
    before = [tokens(base, unseen), tokens(base, sentences)]
    print(f"base {options.base}, {options.mb:g} MB, {options.new_tokens:,} new tokens\n")
    print(
        "| method | held-out documents | KoBEST dev | new tokens | below the threshold | unreachable | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory) / "seen.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in seen), encoding="utf-8")
        for method in ("eeve", "continued"):
            started = time.monotonic()
            output = Path(directory) / method
            manifest = build(
                TokenizerSettings(
                    base=options.base,
                    output=str(output),
                    corpus=[Source(path=str(corpus))],
                    method=method,
                    new_tokens=options.new_tokens,
                    min_count_per_gb=600,
                )
            )
            seconds = time.monotonic() - started
            extended = AutoTokenizer.from_pretrained(output)
            ratios = [
                n / tokens(extended, texts) for n, texts in zip(before, (unseen, sentences), strict=True)
            ]
            rare = sum(count < manifest["min_count"] for count in manifest["counts"].values())
            print(
                f"| `{method}` | {ratios[0]:.3f}x | {ratios[1]:.3f}x | {len(manifest['counts']):,} | {rare:,} | "
                f"{manifest['unreachable']} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
