"""Superwords: what new tokens that reach over a space save on text that the tokenizer has not seen, at the same budget.

    python benchmarks/tokenizer_superwords.py [--only SOURCE ...] [--superwords 180 450] [--every 3] [--results DIR]

One source of train_ko is left out after the other, and tokenizers of 8,960 new tokens are built on SOLAR's from every n-th
document of the others, with the threshold of 600 times for each GB. For each number of superwords it prints a JSON line:
tokens divided by those of the tokenizer without superwords, on the source that was left out (`left_out`), on other documents
of the sources that are in (`same_sources`), and on KoBEST's dev sets (`kobest`); and what the manifest says. The last line
has the means. With --results, a run that follows a killed one goes on after the last line that it wrote there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tokenizer_left_out as left_out
from benchmarks.tokenizer_methods import CORPORA, kobest

BASE = "mistral_common:tokenizer.model.v1"  # SOLAR's
TEXTS = ("left_out", "same_sources", "kobest")
KEYS = {"min_count_per_gb": 600}


def built(sources: Mapping[str, list[str]], superwords: int, new_tokens: int) -> tuple[Tokenizer, dict]:
    """A tokenizer and its manifest, with how many seconds it took."""
    with tempfile.TemporaryDirectory() as work:
        started = time.monotonic()
        keys = {**KEYS, "superwords": superwords}
        tokenizer = left_out.ours(BASE, dict(sources), new_tokens, keys, Path(work))
        manifest = json.loads((Path(work) / "ours" / "eeve_tokenizer.json").read_text(encoding="utf-8"))
        return tokenizer, {**manifest, "seconds": round(time.monotonic() - started)}


def measure(options: argparse.Namespace, name: str, sources: Mapping[str, list[str]]) -> list[dict]:
    """The lines for one source that is left out, one for each number of superwords."""
    others = {other: texts for other, texts in sources.items() if other != name}
    seen = {other: texts[:: options.every] for other, texts in others.items()}
    unseen = (
        [text for each in others.values() for text in each[1 :: options.every]] if options.every > 1 else []
    )
    texts = dict(zip(TEXTS, (sources[name], unseen, kobest()), strict=True))
    before: dict[str, int] = {}
    rows = []
    for superwords in (0, *options.superwords):
        tokenizer, manifest = built(seen, superwords, options.new_tokens)
        tokens = {text: left_out.tokens(tokenizer, of) for text, of in texts.items()}
        before = before or tokens
        few = [count for token, count in manifest["counts"].items() if len(token.lstrip("▁")) > 1]
        row = {
            "source": name,
            "asked": [superwords, options.new_tokens, options.every],
            "superwords": manifest.get("superwords", 0),
            "new_tokens": len(manifest["counts"]),
            **{text: round(tokens[text] / max(1, before[text]), 4) for text in TEXTS},
            "below_threshold": sum(count < manifest["min_count"] for count in few),
            **{key: manifest[key] for key in ("min_count", "unreachable", "sentencepiece", "seconds")},
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Leave out one source after the other; print the lines, and the means last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="the sources to leave out")
    parser.add_argument("--superwords", nargs="+", type=int, default=[180, 450])
    parser.add_argument("--new-tokens", type=int, default=8_960)
    parser.add_argument("--every", type=int, default=3, help="train on every n-th document")
    parser.add_argument("--results", help="a directory for the lines of what is finished")
    options = parser.parse_args()
    sources = left_out.by_source(CORPORA / "train_ko.jsonl.gz")
    place = Path(options.results or tempfile.mkdtemp()) / "superwords.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    lines = place.read_text(encoding="utf-8").splitlines() if place.exists() else []
    asked = [[n, options.new_tokens, options.every] for n in (0, *options.superwords)]
    done = [row for row in map(json.loads, lines) if row["asked"] in asked]
    rows = []
    for name in options.only or sources:
        found = [row for row in done if row["source"] == name]
        if len(found) < len(asked):
            found = measure(options, name, sources)
            with place.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
        rows += found
    means = {}
    for superwords in options.superwords:
        some = [row for row in rows if row["asked"][0] == superwords]
        means[superwords] = {text: round(sum(row[text] for row in some) / len(some), 4) for text in TEXTS}
    print(json.dumps(means))


if __name__ == "__main__":
    main()
