"""The benchmark on real bases sees what is wrong with a tokenizer; it needs none of them here."""

import json

import pytest
from tokenizers import Tokenizer

from benchmarks import real_tokenizer_clients as clients
from benchmarks import real_tokenizers as benchmark
from tests.tokenizer.test_byte_level import KINDS


def state(vocab: dict, added: dict | None = None) -> dict:
    return {
        "model": {"vocab": vocab},
        "added_tokens": [{"content": token, "id": i} for token, i in (added or {}).items()],
    }


@pytest.mark.parametrize("after, count", [
    (state({"a": 0, "b": 1, "new": 5}, {"<s>": 4}), 0),
    (state({"a": 0, "b": 1, "new": 4}, {"<s>": 4}), 1),
    (state({"a": 0, "b": 1, "new": 5, "other": 5}, {"<s>": 4}), 1),
    (state({"a": 0, "new": 1}, {"<s>": 4}), 1),
    (state({"a": 1, "b": 0, "new": 5}, {"<s>": 4}), 2),
])  # fmt: skip
def test_collisions_are_counted(after, count):
    assert benchmark.collisions(state({"a": 0, "b": 1}, {"<s>": 4}), after) == count


def test_what_the_base_doubles_is_not_held_against_the_extension():
    base = state({"a": 0, "b": 0})
    assert benchmark.collisions(base, state({"a": 0, "b": 0, "new": 1})) == 0


@pytest.fixture
def pair(tmp_path):
    """A base and the same with another merge fewer."""
    places = [tmp_path / name for name in ("base", "other")]
    for place in places:
        KINDS["llama3"]().save_pretrained(place)
    raw = json.loads((places[1] / "tokenizer.json").read_text())
    raw["model"]["merges"] = [pair for pair in raw["model"]["merges"] if pair != ["t", "h"]]
    raw["decoder"] = None
    (places[1] / "tokenizer.json").write_text(json.dumps(raw))
    return places


def test_a_client_is_held_to_the_library_beyond_what_it_does_with_the_base(pair):
    base, other = pair
    texts = ["the", "if"]

    def wrong(place, texts):
        return [
            [-1] if text == "the" else ids
            for text, ids in zip(texts, clients.library(place, texts), strict=True)
        ]

    def wrong_beyond(place, texts):
        return wrong(place, texts) if place == other else clients.library(place, texts)

    assert benchmark.differing(clients.library, base, other, texts, strict=False) == 0
    assert benchmark.differing(wrong, base, other, texts, strict=False) == 0
    assert benchmark.differing(wrong, base, other, texts, strict=True) == 1
    assert benchmark.differing(wrong_beyond, base, other, texts, strict=False) == 1
    assert benchmark.differing(lambda *_: None, base, other, texts, strict=False) is None
    assert clients.transformers(base, texts) == clients.library(base, texts) != clients.library(other, texts)


def test_texts_that_come_back_otherwise_are_counted(pair):
    assert benchmark.decoding(pair[0], pair[0], ["the x", "é"]) == 0
    assert benchmark.decoding(pair[0], pair[1], ["the x", "é"]) == 2


def test_random_texts_have_all_of_unicode_and_can_be_encoded():
    text = "".join(benchmark.random_texts(500))
    assert {char for char in text if "가" <= char <= "힣"} and max(text) > "\U000f0000" and " " in text
    assert not any(0xD800 <= ord(char) < 0xE000 for char in text)
    tokenizer = Tokenizer.from_str(KINDS["gpt2"]().backend_tokenizer.to_str())
    assert tokenizer.encode(text).ids


def test_the_table_has_a_row_a_base():
    rows = {
        "a": {"built": False, "asked": 2000, "got": 0, "error": "x"},
        "b": {"built": True, "asked": 2000, "got": 1999, "collisions": 0, "changed_texts": 1, "clients": {"Node": 3},
              "decoding": 0, "unreachable": 0},
    }  # fmt: skip
    lines = list(benchmark.table(rows))
    assert len(lines) == 4 and lines[2].startswith("| a | **no** | 2,000 | 0 |")
    assert lines[3] == "| b | yes | 2,000 | 1,999 | 0 | 1 | - | - | - | 3 | - | 0 | 0 |"
