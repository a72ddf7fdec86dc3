"""Byte-level bases (Llama-3, Qwen, GPT-2): new tokens for a script, and everything else as it was."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from eeve_axolotl.embeddings import subwords
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer import counting
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.letters import letters_of, sharing, unshared
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.spelling import ByteLevel, byte_level_alphabet
from eeve_axolotl.tokenizer.token_counts import tokens_of, unreachable
from eeve_axolotl.tokenizer.words import word_splitter
from tests.conftest import corpus
from tests.tokenizer.test_counting import InMemory, tokens_in, write

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
ENGLISH = (Path(bases.__file__).read_text(encoding="utf-8") + Path(__file__).read_text(encoding="utf-8")).encode(
    "ascii", "ignore"
).decode()  # fmt: skip

# Stems and endings: Greek with accents, polytonic letters too.
STEMS = "λόγ ἄνθρωπ θάλασσ ουραν καλ μεγάλ γράφ διαβάζ ψυχ φιλοσοφ ὁδ χρόν δημοκρατ ζω πολιτεί ᾠδ".split()
ENDINGS = "ος ου ον οι ους ων α ας ες η ης ω εις ει ουμε ετε ουν ία ικός".split()
SYLLABLES = "가 나 다 라 마 하 한 국 어 말 글 을 를 이 은 는 사 람 들 에 서 도 읽 습 니 힣 뷁".split()


def greek(seed: int = 0, words: int = 6000) -> list[str]:
    rng = random.Random(seed)
    made = [rng.choice(STEMS) + rng.choice(ENDINGS) for _ in range(words)]
    return [" ".join(made[n : n + 12]) + ". The end; μ 3" for n in range(0, words, 12)]


def hangul(seed: int = 0, words: int = 6000) -> list[str]:
    rng = random.Random(seed)
    lexicon = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(300)]
    made = [rng.choice(lexicon) for _ in range(words)]
    return [" ".join(made[n : n + 12]) + ". (말: ok)" for n in range(0, words, 12)]


def small(texts: list[str], *, pattern: str | None = None, normalizer=None, vocab_size: int = 1000):
    """A byte-level BPE tokenizer of GPT-2's kind, or with `pattern`, of Llama-3's."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = pattern and pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level]) if split else level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<|start|>"])  # outside the model's vocabulary, as Llama-3's and Qwen's are
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|end|>")


KINDS = {
    "gpt2": lambda: small([ENGLISH]),
    "llama3": lambda: small([ENGLISH], pattern=LLAMA3),
    "qwen": lambda: small([ENGLISH], pattern=LLAMA3, normalizer=normalizers.NFC()),
    # Has seen a little of the scripts: its tokens cut letters in two, and join a letter with half of the next.
    "mixed": lambda: small([ENGLISH, *hangul(7, 600), *greek(7, 300)], pattern=LLAMA3, vocab_size=1150),
}


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    KINDS[request.param]().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=["eeve", "continued"])
def built(request, base, tmp_path_factory):
    """The base, extended with Hangul and Greek, and its manifest."""
    directory = tmp_path_factory.mktemp("built")
    file = write(directory / "texts.jsonl", [*hangul(), *greek()])
    output = directory / "extended"
    manifest = build(
        TokenizerSettings(
            base=str(base),
            output=str(output),
            corpus=[Source(path=str(file))],
            script=["Hangul", "Greek"],
            method=request.param,
            new_tokens=400,
            intermediate_vocab_size=1500,
            min_count=5,
        )
    )
    return AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(output), manifest


def test_the_scripts_take_fewer_tokens(built):
    before, after, manifest = built
    assert manifest["unreachable"] == 0
    for unseen in (hangul(0, 7000)[500:], greek(1)):
        lengths = [sum(len(ids) for ids in each(unseen)["input_ids"]) for each in (before, after)]
        assert lengths[0] > 1.2 * lengths[1]


def test_every_new_token_is_produced(built):
    _, after, manifest = built
    model = bases.model_of(json.loads(after.backend_tokenizer.to_str()))
    new = list(manifest["counts"])
    assert len(new) > 200
    assert [model.encode(token).tokens for token in new] == [[token] for token in new]


def test_english_is_as_it_was(built):
    before, after, _ = built
    text = f"<|start|>{ENGLISH}<|end|>"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after.get_added_vocab() == before.get_added_vocab()


def code_points(ranges: list[str]) -> set[int]:
    """What the manifest says may change, as numbers."""
    found: set[int] = set()
    for entry in ranges:
        ends = [int(end.removeprefix("U+"), 16) for end in entry.split("..")]
        found.update(range(ends[0], ends[-1] + 1))
    return found


PIECES = st.sampled_from(
    ["가", "한국", " 한", "힣", "λόγος", " ἄ", "Ω", "\u2126", "µ", "\u1112\u1161\u11ab", " ", "  ", "\n", "\t", "▁", "a",
     " the", "'s", "1", "漢", "é", "\u0301", "<|end|>", "<|start|>", "🙂", "\ud7a4", "ힰ", "฿"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=20).map("".join)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_decodes_as_the_base_does(built, text):
    before, after, manifest = built
    old, new = (each(text, add_special_tokens=False)["input_ids"] for each in (before, after))
    assert after.decode(new) == before.decode(old)
    words = word_splitter(json.loads(before.backend_tokenizer.to_str()), ["Hangul", "Greek"])
    normal = (
        before.backend_tokenizer.normalizer.normalize_str(text)
        if before.backend_tokenizer.normalizer
        else text
    )
    if not words.has_script(normal) and not set(map(ord, normal)) & code_points(manifest["also_changed"]):
        assert new == old


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_counts_equal_re_encoding(built, texts):
    before, after, manifest = built
    state = json.loads(after.backend_tokenizer.to_str())
    cut = word_splitter(json.loads(before.backend_tokenizer.to_str()), ["Hangul", "Greek"])
    words = Counter(word for text in texts for word in cut.words(text))
    ours = tokens_of(bases.model_of(state), InMemory(words))
    theirs = tokens_in(after.backend_tokenizer, texts)
    whole = list(filter(cut.is_span, manifest["counts"]))
    assert {token: ours[token] for token in whole} == {token: theirs[token] for token in whole}


def test_a_new_row_knows_the_bytes_it_is_made_of(built):
    before, after, manifest = built
    spelling = ByteLevel()
    for token, ids in zip(manifest["counts"], subwords(after, len(before)), strict=True):
        assert "".join(before.convert_ids_to_tokens(ids)) == token
        assert spelling.spell(spelling.read(token)) == token or "<0x" in spelling.read(token)


def test_fragments_say_what_else_they_change(tmp_path):
    """Thai shares its first two bytes with the baht sign, which is no Thai letter by Unicode."""
    base = KINDS["llama3"]()
    state = json.loads(base.backend_tokenizer.to_str())
    file = write(tmp_path / "thai.jsonl", ["ภาษาไทย ภาษา ไทย ฿100"] * 20)
    cut = word_splitter(state, ["Thai"])
    letters = letters_of(state, counting.count(Source(path=str(file)).shards(), cut, tmp_path / "work"))
    fragments = letters.needed(list(letters.counts))
    assert {ByteLevel().bytes(fragment).lstrip(b" ") for fragment in fragments} == {b"\xe0\xb8", b"\xe0\xb9"}
    assert ord("฿") in code_points(sharing(fragments, cut))
    assert all(b"\xe0\xb8" not in ByteLevel().bytes(letter) for letter in unshared(letters, cut).counts)


def test_a_base_without_pattern_is_refused(tmp_path):
    tokenizer = KINDS["gpt2"]()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(EEVEError, match="no pattern"):
        bases.load(str(tmp_path / "base"))


def with_holes(directory: Path) -> Path:
    """A base whose special tokens lie far above its others (GPT-4o's, cl100k's kind)."""
    state = json.loads(KINDS["llama3"]().backend_tokenizer.to_str())
    for n, token in enumerate(state["added_tokens"]):
        token["id"] = 1800 + n
        state["model"]["vocab"].pop(token["content"], None)
    state["model"]["vocab"] |= {token["content"]: token["id"] for token in state["added_tokens"]}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state))).save_pretrained(directory)
    return directory


def without_bytes(directory: Path, missing: set[int]) -> Path:
    """A base that lacks tokens for some bytes (SmolLM2's kind)."""
    state = json.loads(KINDS["llama3"]().backend_tokenizer.to_str())
    lacking = {char for char, byte in byte_level_alphabet().items() if byte in missing}
    model = state["model"]
    model["merges"] = [pair for pair in model["merges"] if not lacking & set("".join(pair))]
    # Ids have holes then: a special token that the vocabulary lacks would be numbered into one.
    model["vocab"] |= {token["content"]: token["id"] for token in state["added_tokens"]}
    model["vocab"] = {token: i for token, i in model["vocab"].items() if not lacking & set(token)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state))).save_pretrained(directory)
    return directory


def extend(base: Path, texts: list[str], output: Path, **settings) -> dict:
    file = write(output.with_suffix(".jsonl"), texts)
    return build(
        TokenizerSettings(
            base=str(base), output=str(output), corpus=[Source(path=str(file))],
            **{"new_tokens": 100, "intermediate_vocab_size": 800, "min_count": 3} | settings,
        )
    )  # fmt: skip


def test_new_ids_begin_after_the_highest_of_a_base_with_holes(tmp_path):
    base = with_holes(tmp_path / "base")
    before = Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab()
    manifest = extend(base, hangul(), tmp_path / "extended")
    after = Tokenizer.from_file(str(tmp_path / "extended" / "tokenizer.json")).get_vocab()
    assert max(before.values()) + 1 == manifest["base_vocab_size"] == 1802
    assert len(set(after.values())) == len(after) and before.items() <= after.items()
    assert sorted(after.values())[-100:] == list(range(1802, 1902))


@pytest.mark.parametrize("kind", ["mixed", "llama3"])
def test_the_budget_is_met_where_fragments_lead_nowhere_in_the_end(kind, tmp_path):
    """Many rare letters ask for fragments, and a small budget drops the letters again."""
    KINDS[kind]().save_pretrained(tmp_path / "base")
    rng = random.Random(1)
    rare = ["".join(chr(rng.randrange(0xAC00, 0xD7A4)) for _ in range(3)) for _ in range(400)]
    manifest = extend(tmp_path / "base", [*hangul(), *rare * 3], tmp_path / "extended", new_tokens=60)
    assert manifest["vocab_size"] - manifest["base_vocab_size"] == 60 == len(manifest["counts"])
    assert manifest["unreachable"] == 0


def test_new_tokens_come_of_their_merges_where_a_whole_word_needs_none(tmp_path):
    """Llama-3's `ignore_merges`, which not every program knows for every base."""
    state = json.loads(KINDS["mixed"]().backend_tokenizer.to_str())
    state["model"]["ignore_merges"] = True
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state))).save_pretrained(
        tmp_path / "base"
    )
    manifest = extend(tmp_path / "base", hangul(), tmp_path / "extended", new_tokens=200)
    after = json.loads((tmp_path / "extended" / "tokenizer.json").read_text())
    assert after["model"]["ignore_merges"] is True
    after["model"]["ignore_merges"] = False
    assert not unreachable(after, list(manifest["counts"])) and len(manifest["counts"]) == 200


def test_bytes_that_a_base_lacks_are_no_matter_where_the_script_has_none(tmp_path):
    """A control character inside a word is passed over by the base's model; what is counted is what it makes."""
    base = without_bytes(tmp_path / "base", {0x01, 0xC0, 0xC1, 0xF1, 0xF5, 0xFF})
    texts = [text.replace("하", "하\x01") for text in hangul()]
    assert extend(base, texts, tmp_path / "extended")["unreachable"] == 0


def test_a_base_without_the_bytes_of_the_script_is_refused(tmp_path):
    base = without_bytes(tmp_path / "base", {0xED})
    with pytest.raises(EEVEError, match=r"lacks tokens for single bytes that Hangul is spelled with \(ED\)"):
        extend(base, hangul(), tmp_path / "extended")


TEKKEN = Path(importlib.util.find_spec("mistral_common").origin).parent / "data" / "tekken_240911.json"


@pytest.fixture(scope="module")
def korean() -> list[str]:
    with gzip.open(corpus("train_ko.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(next(lines))["text"] for _ in range(400)]


def test_tekken_is_read_as_mistral_reads_it(korean):
    theirs, ours = Tekkenizer.from_file(TEKKEN), bases.load(str(TEKKEN))
    assert len(ours) == theirs.n_words
    for text in [*korean[:50], ENGLISH.replace("<", "")]:  # special tokens are text to Mistral's encode
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.encode(text, bos=False, eos=False)


@pytest.mark.parametrize("method, script", [("eeve", "Hangul"), ("continued", "Hangul"), ("eeve", "Greek")])
def test_tekken_is_extended(method, script, korean, tmp_path):
    """It has 131,072 tokens and much Korean already."""
    seen, unseen, other = (
        (korean[100:], korean[:100], greek()) if script == "Hangul" else (greek(), greek(1), korean)
    )
    file = write(tmp_path / "texts.jsonl", seen)
    manifest = build(
        TokenizerSettings(
            base=f"mistral_common:{TEKKEN.name}",
            output=str(tmp_path / "extended"),
            corpus=[Source(path=str(file))],
            script=script,
            method=method,
            new_tokens=1000,
            intermediate_vocab_size=5000,
            min_count=5,
        )
    )
    assert manifest["unreachable"] == 0 and manifest["sentencepiece"] is False
    characters = map(chr, code_points(manifest["also_changed"]))
    assert {unicodedata.category(character) for character in characters} <= {"Cn"}
    before, after = bases.load(str(TEKKEN)), AutoTokenizer.from_pretrained(tmp_path / "extended")
    for text in (ENGLISH, "\n".join(other[:20])):
        letters = regex.sub(rf"\p{{Script={script}}}", "", text)
        assert after(letters)["input_ids"] == before(letters)["input_ids"]
    old, new = (sum(len(ids) for ids in each(unseen)["input_ids"]) for each in (before, after))
    assert old > 1.1 * new
