"""Tokens counted by words are those that the tokenizers library makes of the whole text."""

import copy
import json
import logging
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from eeve_axolotl.corpus import by_words
from eeve_axolotl.corpus.by_words import ByWords, reason_against
from eeve_axolotl.corpus.kernels.tokens import LONGEST
from eeve_axolotl.corpus.token_counter import TokenCounter
from tests.corpus.conftest import Maker

NEW = 300  # of the byte-level vocabularies, tokens from here on count as new
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = [
    *Maker().nouns[:20],
    *"the water ocean, (don't) 12 3.5 x y z 日本語 ไทย हिन्दी русский ΟΔΟΣ İ 😀 👨‍👩‍👧 é e\u0301 ▁ ▁▁".split(
        " "
    ),
    *(
        "<s>",
        "</s>",
        "<unk>",
        "<0x0A>",
        "[INST]",
        "<|end|>",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\x00",
        "\u3000",
    ),
]
texts = st.lists(st.sampled_from(WORDS) | st.characters(codec="utf-8"), max_size=40).flatmap(
    lambda words: st.sampled_from(["", " "]).map(lambda blank: blank.join(words))
)


@cache
def byte_level(ignore_merges: bool) -> dict:
    """A byte-level BPE of made-up words, as Llama-3's is or as Qwen's."""
    maker = Maker(4)
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = None if ignore_merges else normalizers.NFC()
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of_words])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=["<|end|>", "[INST]"], show_progress=False
    )
    tokenizer.train_from_iterator([maker.document(language) for language in ("ko", "en") * 20], trainer)
    return json.loads(tokenizer.to_str())


@pytest.fixture(scope="module")
def plain_state(tokenizer_directory) -> dict:
    return json.loads((tokenizer_directory / "tokenizer.json").read_text(encoding="utf-8"))


def metaspace(scheme: str) -> dict:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}
GEMMA = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
PLAIN = {
    "always": {"normalizer": None, "pre_tokenizer": metaspace("always")},
    "first": {"normalizer": None, "pre_tokenizer": metaspace("first")},
    "never": {"normalizer": None, "pre_tokenizer": metaspace("never")},
    "prepended": {"normalizer": PREPEND, "pre_tokenizer": None},
    "gemma": {"normalizer": REPLACE, "pre_tokenizer": GEMMA},
}


def added(content: str, number: int, **flags: bool) -> dict:
    keys = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **keys, **flags}


def pair(state: dict, first_new: int) -> tuple[ByWords, Tokenizer, int]:
    tokenizer = Tokenizer.from_str(json.dumps(state))
    assert reason_against(json.loads(tokenizer.to_str())) is None
    size = max(tokenizer.get_vocab().values()) + 1
    return ByWords(state, first_new, size - first_new), tokenizer, first_new


@pytest.fixture(scope="module")
def pairs(plain_state, base_tokenizer):
    """Counters with the tokenizers that they are held to; made once, so that they remember words."""
    found = [pair(byte_level(ignore_merges), NEW) for ignore_merges in (False, True)]
    for name, parts in PLAIN.items():
        state = copy.deepcopy(plain_state) | parts
        last = max(state["model"]["vocab"].values())
        more = {
            "gemma": [added("\n\n", last + 1), added("▁▁", state["model"]["vocab"]["▁▁"])],
            "first": [added("[INST]", last + 1, rstrip=True)],
        }
        state["added_tokens"] += more.get(name, [])
        found.append(pair(state, len(base_tokenizer)))
    return found


def whole(tokenizer: Tokenizer, text: str, first_new: int) -> tuple[int, dict[int, int]]:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    new, times = np.unique([number - first_new for number in ids if number >= first_new], return_counts=True)
    return len(ids), dict(zip(new.tolist(), times.tolist(), strict=True))


@given(texts)
@example(" ".join(WORDS))
@example("가" * (LONGEST - 2))
@settings(max_examples=200, deadline=None)
def test_counts_by_words_are_the_tokenizers_own(pairs, text):
    for counter, tokenizer, first_new in pairs:
        counted = counter.count(text)
        if counted is None:  # only where an added token or a very long word is in it
            assert any(content in text for content in ("<", "[INST]", "\n\n", "▁▁", "가" * 300))
            continue
        tokens, new, times = counted
        expected = whole(tokenizer, text, first_new)
        assert (tokens, dict(zip(new.tolist(), times.tolist(), strict=True))) == expected
        assert (np.diff(new) > 0).all()


def test_nothing_is_lost_when_words_are_forgotten(plain_state, base_tokenizer, monkeypatch):
    monkeypatch.setattr(by_words, "WORDS", 64)
    counter, tokenizer, first_new = pair(plain_state, len(base_tokenizer))
    text = Maker(8).document(lines=200)
    tokens, new, times = counter.count(text)
    assert len(set(text.split())) > 128
    assert (tokens, dict(zip(new.tolist(), times.tolist(), strict=True))) == whole(tokenizer, text, first_new)


def test_a_very_long_word_is_left_to_the_tokenizer_and_leaves_nothing_behind(plain_state, base_tokenizer):
    counter, tokenizer, first_new = pair(plain_state, len(base_tokenizer))
    noun = Maker().nouns[0]
    assert counter.count(f"{noun} " + "a" * 2 * LONGEST) is None
    assert counter.count(noun)[0] == whole(tokenizer, noun, first_new)[0]
    assert counter.count(noun)[2].sum() == sum(whole(tokenizer, noun, first_new)[1].values())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"dropout": 0.1}}, "dropout"),
        ({"model": {"byte_fallback": False}}, "not spelled in bytes"),
        ({"model": {"ignore_merges": True}}, "whole texts"),
        ({"normalizer": {"type": "NFKC"}}, "more than ▁"),
    ],
)
def test_other_tokenizers_count_whole_texts_and_say_so(
    plain_state, base_tokenizer, tmp_path, caplog, change, reason
):
    state = copy.deepcopy(plain_state)
    state["model"] |= change.pop("model", {})
    state |= change
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    counter = TokenCounter(tmp_path, len(base_tokenizer))
    with caplog.at_level(logging.INFO, "axolotl.eeve.corpus"):
        columns = counter.count(["가나다 라마바"])
    assert reason in caplog.text and "whole texts are tokenized" in caplog.text
    if "dropout" not in state["model"] or not state["model"]["dropout"]:
        assert columns["tokens"].tolist() == [len(counter.ids(["가나다 라마바"])[0])]


def test_a_count_by_words_that_is_wrong_is_noticed(tokenizer_directory, base_tokenizer, caplog):
    counter = TokenCounter(tokenizer_directory, len(base_tokenizer))
    counter._by_words.count = lambda text: (1, np.empty(0, np.int32), np.empty(0, np.int32))
    text = Maker().document()
    with caplog.at_level(logging.WARNING, "axolotl.eeve.corpus"):
        columns = counter.count([text, text])
    assert columns["tokens"].tolist() == [len(counter.ids([text])[0])] * 2
    assert "other tokens" in caplog.text
