"""New tokens that reach over the space between words: each is produced, counted exactly, and nothing else changes."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from eeve_axolotl.corpus.token_counter import TokenCounter
from eeve_axolotl.embeddings import subwords
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.base import extended_state, model_of
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.origin import what_changed
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.spelling import is_superword
from eeve_axolotl.tokenizer.superwords import check
from eeve_axolotl.tokenizer.token_counts import unreachable
from eeve_axolotl.tokenizer.words import word_splitter
from eeve_axolotl.tokenizer.words.joined import JoinedWordSplitter, apart
from tests.conftest import tiny_llama
from tests.e2e import llama_cpp
from tests.tokenizer.test_counting import write

DICE = random.Random(0)
LETTERS = "가나다라마바사아자차"


def stem() -> str:
    """A random word, now and then one of those that stand side by side in others."""
    alone = DICE.choice(["할", "될", "수", "있다", "있습니다", "대한", "에"])
    return alone if DICE.random() < 0.2 else "".join(DICE.choices(LETTERS, k=DICE.randint(1, 3)))


def sentence() -> str:
    """Words that are often side by side, between others."""
    ends = [
        f"{DICE.choice(['할', '될', stem()])} 수 {DICE.choice(['있다', '있습니다', '없다', stem()])}",
        f"{stem()}에 대한 {stem()}",
    ]
    return " ".join([stem(), DICE.choice(ends), stem(), DICE.choice(["(가) 나", "Hello", "바  사", stem()])])


WORDS = ["할 수 있습니다", "될 수 있다", "수", "가나에 대한", "있습니다", "(가나) 다라", "Hello", "바  사"]
TEXTS = [". ".join(sentence() for _ in range(8)) + DICE.choice([".", "\n", ", the"]) for _ in range(150)]
MIN_COUNT = 10
GREEK = [
    f"{' '.join(random.Random(n).choices(['και', 'είναι', 'νερό', 'έργο', 'στην', 'πόλη', '할 수'], k=20))}. {text[:60]}"
    for n, text in enumerate(TEXTS)
]


def built(base: Path, directory: Path, **keys) -> dict:
    corpus = keys.pop("corpus", None) or [{"path": str(write(directory / "texts.jsonl", TEXTS))}]
    keys = {
        "min_count": MIN_COUNT,
        "new_tokens": 40,
        "intermediate_vocab_size": 100,
        "superwords": 12,
        **keys,
    }
    return build(
        TokenizerSettings(base=str(base), output=str(directory / "tokenizer"), corpus=corpus, **keys)
    )


@pytest.fixture(scope="module")
def directory(base_tokenizer_directory, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("superwords")
    built(base_tokenizer_directory, directory)
    return directory / "tokenizer"


@pytest.fixture(scope="module")
def manifest(directory) -> dict:
    return json.loads((directory / "eeve_tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def extended(directory) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def test_superwords_are_among_the_new_tokens(manifest):
    found = [token for token in manifest["counts"] if is_superword(token)]
    assert 2 < len(found) == manifest["superwords"] <= 12
    assert any(token.strip("▁").count("▁") > 1 for token in found), "of three words"
    assert list(manifest["counts"])[-len(found) :] == found, "their merges come after all others"


@pytest.mark.parametrize("keys", [{}, {"method": "continued"}, {"new_tokens": None}, {"new_tokens": 30}])
def test_every_new_token_is_produced_as_often_as_whole_documents_have_it(
    base_tokenizer_directory, tmp_path, keys
):
    manifest = built(base_tokenizer_directory, tmp_path, **keys)
    state = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_str(json.dumps(state))
    produced = [
        token for each in tokenizer.encode_batch(TEXTS, add_special_tokens=False) for token in each.tokens
    ]
    assert manifest["superwords"] > 2
    assert manifest["unreachable"] == 0 == len(unreachable(state, list(manifest["counts"])))
    for token, count in manifest["counts"].items():
        assert produced.count(token) == count, token
        assert count >= MIN_COUNT or len(token.lstrip("▁")) == 1, token


def test_words_are_cut_as_without_superwords_and_then_joined(directory, manifest, extended, base_tokenizer):
    state = json.loads(base_tokenizer.backend_tokenizer.to_str())
    words = [token for token in manifest["counts"] if not is_superword(token)]
    without = Tokenizer.from_str(json.dumps(extended_state(state, words, manifest["base_vocab_size"])))
    for text in TEXTS:
        ends, of_words = (_ends(tokenizer, text) for tokenizer in (extended, without))
        assert ends <= of_words


def _ends(tokenizer: Tokenizer, text: str) -> set[int]:
    return {end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets}


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="the cat_1.\n\t éЖ中", max_size=60))
def test_other_text_is_as_before(extended, base_tokenizer, text):
    before = base_tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert extended.encode(text, add_special_tokens=False).ids == before


@settings(max_examples=300, deadline=None)
@given(text=st.lists(st.sampled_from([*WORDS, " ", "▁", ".", "a", "있", "대"]), max_size=12).map("".join))
def test_decoding_gives_the_text_back_and_sentencepiece_cuts_alike(
    directory, manifest, extended, base_tokenizer, text
):
    assert manifest["sentencepiece"] is True
    base = base_tokenizer.backend_tokenizer
    ids = extended.encode(text, add_special_tokens=False).ids
    assert extended.decode(ids) == base.decode(base.encode(text, add_special_tokens=False).ids)
    slow, fast_before = (
        _sentencepiece(directory / "tokenizer.model"),
        base.encode(text, add_special_tokens=False).ids,
    )
    before = _sentencepiece(Path(base_tokenizer.name_or_path) / "tokenizer.model")
    if before.encode(text) == fast_before:
        assert slow.encode(text) == ids


_MODELS: dict[Path, SentencePieceProcessor] = {}


def _sentencepiece(file: Path) -> SentencePieceProcessor:
    return _MODELS.setdefault(file, SentencePieceProcessor(model_file=str(file)))


def test_same_inputs_give_the_same_bytes(base_tokenizer_directory, directory, tmp_path):
    built(base_tokenizer_directory, tmp_path, workers=2, memory_mb=100)
    for name in ("tokenizer.json", "tokenizer.model", "candidates.tsv"):
        assert (tmp_path / "tokenizer" / name).read_bytes() == (directory / name).read_bytes()


def test_domains_are_weighed(base_tokenizer_directory, tmp_path):
    corpus = [
        {"path": str(write(tmp_path / f"{n}.jsonl", texts))}
        for n, texts in enumerate((TEXTS[:100], TEXTS[100:]))
    ]
    manifest = built(base_tokenizer_directory, tmp_path, corpus=corpus, weigh_words_by="domain")
    assert manifest["superwords"] > 2 and manifest["unreachable"] == 0


def test_lists_and_patterns_refuse_superwords_too(base_tokenizer_directory, manifest, tmp_path):
    some = next(token for token in manifest["counts"] if is_superword(token))
    (tmp_path / "deny.txt").write_text(some, encoding="utf-8")
    denied = built(base_tokenizer_directory, tmp_path, deny=[str(tmp_path / "deny.txt")])
    assert some not in denied["counts"] and denied["superwords"] > 2
    rejected = built(base_tokenizer_directory, tmp_path, reject=["[^▁]▁.*▁"], overwrite=True)
    found = [token for token in rejected["counts"] if is_superword(token)]
    assert found and all(token.strip("▁").count("▁") == 1 for token in found)


def test_rows_start_from_base_tokens_of_all_the_words(directory, manifest, base_tokenizer):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    first = manifest["base_vocab_size"]
    pieces = base_tokenizer.convert_ids_to_tokens
    for token, ids in zip(manifest["counts"], subwords(tokenizer, first), strict=True):
        assert ids and max(ids) < first
        if is_superword(token):
            assert base_tokenizer.backend_tokenizer.decode(ids) == token.replace("▁", " ").strip()
            assert pieces(ids).count("▁") >= token.strip("▁").count("▁")


def test_the_corpus_counts_them_as_the_tokenizer_does(directory, manifest, extended):
    counter = TokenCounter(directory, manifest["base_vocab_size"])
    columns = counter.count(TEXTS)
    tokens = [len(each.ids) for each in extended.encode_batch_fast(TEXTS, add_special_tokens=False)]
    assert columns["tokens"].to_pylist() == tokens
    assert counter._by_words is not None, "and by words"


def test_a_base_that_cuts_between_words_is_refused(small_tokenizer_directory, tmp_path):
    state = json.loads(AutoTokenizer.from_pretrained(small_tokenizer_directory).backend_tokenizer.to_str())
    byte_level = {
        **state,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "normalizer": None,
    }
    splitting = {
        **state,
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    }
    for other, why in ((byte_level, "pre-tokenizer cuts text"), (splitting, "cuts or changes text")):
        with pytest.raises(
            EEVEError, match=f"superwords: no new token of some base can reach over a space.*{why}"
        ):
            check("some base", other, word_splitter(other, ["Hangul"]))


def test_a_tokenizer_that_has_superwords_is_extended_without_more_of_them(directory, tmp_path):
    greek = {"script": ["Greek"], "corpus": [{"path": str(write(tmp_path / "greek.jsonl", GREEK))}]}
    with pytest.raises(EEVEError, match="some of its own tokens do already.*remove `superwords`"):
        built(directory, tmp_path, **greek)
    manifest = built(directory, tmp_path, **greek, superwords=0)
    before = Tokenizer.from_file(str(directory / "tokenizer.json"))
    after = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    produced = [
        token for each in after.encode_batch(GREEK, add_special_tokens=False) for token in each.tokens
    ]
    assert manifest["counts"] == {token: produced.count(token) for token in manifest["counts"]}
    for text in TEXTS[:50]:
        assert after.encode(text).ids == before.encode(text).ids


def test_superwords_asked_for_later_are_a_change_also_beside_a_manifest_that_does_not_know_them(
    base_tokenizer_directory, tmp_path
):
    manifest = built(base_tokenizer_directory, tmp_path, superwords=0)
    del manifest["settings"]["superwords"]
    asked = TokenizerSettings(**manifest["settings"], output=str(tmp_path / "tokenizer"))
    assert not what_changed(manifest, asked)
    with_some = asked.model_copy(update={"superwords": 12})
    assert what_changed(manifest, with_some)[0] == "superwords was 0 and is 12"


# What is joined: all that is tokenized together, and no more.

PAIRS = [("할", "▁수"), ("▁수", "▁있"), ("▁가나", "▁다")]


@pytest.fixture(scope="module")
def joined(state) -> JoinedWordSplitter:
    return JoinedWordSplitter(state, ["Hangul"], PAIRS)


def test_words_are_joined_where_a_pair_may_lie(joined):
    assert joined.words("할 수 있다. 할  수 가나 다라 마가나 다라 the 수") == [
        "▁할▁수▁있다", "▁할", "▁▁수", "▁가나▁다라", "▁마가나", "▁다라", "▁수",
    ]  # fmt: skip
    assert pickle.loads(pickle.dumps(joined)).words("할 수") == ["▁할▁수"]
    assert apart("▁▁할▁수▁있다") == ["▁▁할", "▁수", "▁있다"]
    assert apart("할") == ["할"]


def test_other_pairs_are_other_counts(state, joined):
    assert joined.digest != JoinedWordSplitter(state, ["Hangul"], PAIRS[:2]).digest


NEW = [*"할수있가나다", "▁할", "▁수", "▁있", "가나", "▁가나", "▁다"]
NEW += ["할▁수", "▁할▁수", "▁수▁있", "할▁수▁있", "▁가나▁다"]


@pytest.fixture(scope="module")
def whole_and_bare(state) -> tuple[Tokenizer, Tokenizer]:
    """A tokenizer with the tokens `NEW`, and its model alone."""
    extended = extended_state(state, NEW, max(state["model"]["vocab"].values()) + 1)
    return Tokenizer.from_str(json.dumps(extended)), model_of(extended)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="할수있가나다 ▁.a", max_size=30))
def test_what_is_joined_is_tokenized_by_itself(joined, whole_and_bare, text):
    whole, bare = (
        [token for each in texts for token in model.encode(each, add_special_tokens=False).tokens]
        for model, texts in zip(whole_and_bare, ([text], joined.words(text)), strict=True)
    )
    assert [token for token in bare if token in NEW] == [token for token in whole if token in NEW]


def test_llama_cpp_cuts_text_alike(directory, tmp_path):
    llama_cpp.needed()
    shutil.copytree(directory, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "model")
    done = llama_cpp.convert(tmp_path / "model", tmp_path / "model.gguf")
    assert done.returncode == 0, done.stdout[-2000:]
    texts = TEXTS[:20]
    wanted = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    over = {number for token, number in tokenizer.get_vocab().items() if is_superword(token)}
    assert sum(not over.isdisjoint(ids) for ids in wanted) > 10
    asked = [("tokenize", {"content": text, "add_special": False}) for text in texts]
    assert [each["tokens"] for each in llama_cpp.ask(tmp_path / "model.gguf", *asked)] == wanted
