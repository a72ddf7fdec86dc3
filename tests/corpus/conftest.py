"""A small made-up corpus and tokenizer: words nobody wrote, with Korean particles and English function words."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import pytest

from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.corpus.store import records
from tests.conftest import extended

SYLLABLES = [chr(code) for code in range(0xAC00, 0xD7A4, 23)]
PARTICLES = ["은", "는", "이", "가", "을", "를", "에", "에서", "로", "의", "도"]
ENDINGS = ["했습니다.", "합니다.", "있습니다.", "된다.", "한다."]
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
FUNCTION = "the of and to a in that it for on was with as by from".split()


class Maker:
    """Makes sentences at random; the same seed makes the same ones."""

    def __init__(self, seed: int = 0, nouns: int = 400):
        self.random = random.Random(seed)
        words = random.Random(1)
        self.nouns = ["".join(words.choices(SYLLABLES, k=words.randint(2, 3))) for _ in range(nouns)]
        self.english = [
            "".join(words.choice(CONSONANTS) + words.choice(VOWELS) for _ in range(words.randint(2, 3)))
            for _ in range(nouns)
        ]

    def _noun(self, words: list[str]) -> str:
        # Zipf-like: some words are common, most are rare.
        return words[min(int(self.random.paretovariate(0.6)) - 1, len(words) - 1)]

    def korean_sentence(self, words: int = 9) -> str:
        body = [self._noun(self.nouns) + self.random.choice(PARTICLES) for _ in range(words)]
        return " ".join([*body, self._noun(self.nouns) + self.random.choice(ENDINGS)])

    def english_sentence(self, words: int = 12) -> str:
        body = [self.random.choice(FUNCTION) if i % 2 else self._noun(self.english) for i in range(words)]
        return " ".join(body).capitalize() + "."

    def document(self, language: str = "ko", lines: int = 4, sentences: int = 3) -> str:
        sentence = self.korean_sentence if language == "ko" else self.english_sentence
        return "\n".join(" ".join(sentence() for _ in range(sentences)) for _ in range(lines))


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer_directory(base_tokenizer, tmp_path_factory) -> Path:
    """The base tokenizer with the made-up nouns appended, and a manifest that says where they begin."""
    directory = tmp_path_factory.mktemp("extended_tokenizer")
    extended(base_tokenizer, Maker().nouns).save_pretrained(directory)
    manifest = {"base_vocab_size": len(base_tokenizer)}
    (directory / "eeve_tokenizer.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """Three small corpora without anything planted: 120 Korean, 80 English documents and 120 aligned pairs."""
    directory, maker = tmp_path_factory.mktemp("sources"), Maker(seed=3)
    korean = [maker.document("ko") for _ in range(120)]
    write_jsonl(directory / "ko-0.jsonl", korean[:70])
    write_jsonl(directory / "ko-1.jsonl", korean[70:])
    write_jsonl(directory / "en.jsonl", [maker.document("en") for _ in range(80)])
    pairs = [(maker.english_sentence(24), maker.korean_sentence(16)) for _ in range(120)]
    lines = [json.dumps({"en": en, "ko": ko}, ensure_ascii=False) + "\n" for en, ko in pairs]
    (directory / "pairs.jsonl").write_text("".join(lines), "utf-8")
    return directory


def make_settings(sources: Path, tokenizer: Path, directory: Path, **changes) -> CorpusSettings:
    """Settings that read `sources` and write into `directory`; keywords replace top-level keys."""
    korean = {
        "share": 0.5,
        "language": "ko",
        "rule": "coverage",
        "sources": [{"path": f"{sources}/ko-*.jsonl"}],
    }
    english = {"share": 0.3, "language": "en", "sources": [{"path": f"{sources}/en.jsonl"}]}
    parallel = {"share": 0.2, "template": "{en}\n{ko}", "sources": [{"path": f"{sources}/pairs.jsonl"}]}
    whole = {
        "tokenizer": str(tokenizer),
        "output": str(directory / "corpus"),
        "work": str(directory / "work"),
        "mix": {"korean": korean, "english": english, "parallel": parallel},
        "budget": {"share": 0.5},
        "held_out": {"share": 0.05},
        "write": {"shards": 3},
    }
    return CorpusSettings(**{**whole, **changes})


@pytest.fixture
def settings(sources, tokenizer_directory, tmp_path):
    """Makes settings that write into the test's directory."""
    return partial(make_settings, sources, tokenizer_directory, tmp_path)


def texts(output: Path, split: str) -> list[str]:
    return [row["text"] for file in sorted((output / split).glob("*.parquet")) for row in records(file)]
