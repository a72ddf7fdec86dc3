"""The two ways to find new tokens, `eeve` and `continued`, side by side on text that neither has seen.

    python benchmarks/tokenizer_methods.py [--base mistral_common:tekken_240911.json]

Trains on the first --mb of train_ko, measures on the next 2 MB of it and on every Korean field of the KoBEST
dev sets. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from pathlib import Path

from transformers import AutoTokenizer

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


def main() -> None:
    """Build both, print what they save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="mistral_common:tokenizer.model.v1")
    parser.add_argument("--mb", type=float, default=10)
    parser.add_argument("--new-tokens", type=int, default=8960)
    options = parser.parse_args()
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
