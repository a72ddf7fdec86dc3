"""The SentencePiece model beside the tokenizer: it segments like the fast one, or it is not there."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer import spm
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.tokenizer.test_counting import write

TEXTS = ["가나다라 마바사 가나다 아자차", "Hello, 가나다라마 바사", "가나 다라  마바사\n아자차 가나다라"] * 20


@pytest.fixture(scope="module")
def model(base_tokenizer_directory) -> bytes:
    return (base_tokenizer_directory / "tokenizer.model").read_bytes()


def built(base: Path, directory: Path) -> dict:
    return build(
        TokenizerSettings(
            base=str(base), output=str(directory / "tokenizer"), min_count=3, new_tokens=30,
            corpus=[{"path": str(write(directory / "texts.jsonl", TEXTS))}], intermediate_vocab_size=100,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(base_tokenizer_directory, tmp_path_factory):
    """The fast tokenizer and the SentencePiece model of one build."""
    directory = tmp_path_factory.mktemp("spm")
    manifest = built(base_tokenizer_directory, directory)
    assert manifest["sentencepiece"] is True
    output = directory / "tokenizer"
    assert len(AutoTokenizer.from_pretrained(output)) == manifest["vocab_size"]
    fast = Tokenizer.from_file(str(output / "tokenizer.json"))
    slow = SentencePieceProcessor(model_file=str(output / "tokenizer.model"))
    assert slow.get_piece_size() == manifest["vocab_size"]
    assert [slow.id_to_piece(i) for i in range(32_000, manifest["vocab_size"])] == list(manifest["counts"])
    return fast, slow


@pytest.fixture(scope="module")
def before(base_tokenizer, model):
    """The same of the base."""
    return base_tokenizer.backend_tokenizer, SentencePieceProcessor(model_proto=model)


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(st.sampled_from([*TEXTS[:3], *"가나다라마바사 .a"]) | st.text(max_size=3), max_size=12).map(
        "".join
    )
)
def test_both_segment_alike(both, before, text):
    """Where the base's own two do: transformers merges two spaces before ▁Hello, SentencePiece after."""
    fast, slow = both
    if before[1].encode(text) == before[0].encode(text, add_special_tokens=False).ids:
        assert slow.encode(text) == fast.encode(text, add_special_tokens=False).ids


def test_a_difference_is_found_and_nothing_written(
    monkeypatch, model, base_tokenizer_directory, tmp_path, caplog
):
    def mixed_up(before: bytes, tokens: list[str], base: Tokenizer) -> bytes:
        proto = ModelProto.FromString(right(before, tokens, base))
        last, other = proto.pieces[-1], proto.pieces[-2]
        last.piece, other.piece = other.piece, last.piece
        return proto.SerializeToString()

    right = spm.extended
    monkeypatch.setattr(spm, "extended", mixed_up)
    with caplog.at_level(logging.WARNING, logger="axolotl"):
        manifest = built(base_tokenizer_directory, tmp_path)
    assert manifest["sentencepiece"] is False
    assert not (tmp_path / "tokenizer" / "tokenizer.model").exists()
    assert "no tokenizer.model is written: SentencePiece segments" in caplog.text


def test_a_model_of_other_tokens_is_not_extended(model, base_tokenizer):
    fast = base_tokenizer.backend_tokenizer
    assert spm.extended(model, ["가나"], fast) is not None
    other = ModelProto.FromString(model)
    other.pieces[-1].piece = "쀍쀍"
    assert spm.extended(other.SerializeToString(), ["가나"], fast) is None
    unigram = ModelProto.FromString(model)
    unigram.trainer_spec.model_type = 1
    assert spm.extended(unigram.SerializeToString(), ["가나"], fast) is None


def test_new_pieces_have_falling_scores_below_a_very_low_one(model, base_tokenizer):
    """The base's ▁▁ has -1e9, where 32-bit numbers lie 64 apart."""
    tokens = [chr(0xAC00 + n) + "가" for n in range(500)]
    proto = ModelProto.FromString(spm.extended(model, tokens, base_tokenizer.backend_tokenizer))
    scores = [piece.score for piece in proto.pieces]
    old, new = scores[:32_000], scores[32_000:]
    assert min(old) == -1e9 and [*new] == sorted(set(new), reverse=True) and max(new) < min(old)


@pytest.mark.parametrize("kind", ["WordPiece", "no fallback"])
def test_a_base_that_cannot_be_extended_is_refused(kind, state, tmp_path):
    if kind == "WordPiece":
        vocab = {"[UNK]": 0, "a": 1}
        model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                 "max_input_chars_per_word": 100, "vocab": vocab}  # fmt: skip
        raw = {**state, "model": model, "added_tokens": [], "post_processor": None}
        message = "is a WordPiece tokenizer; only BPE tokenizers can be extended by merges"
    else:
        raw = {**state, "model": {**state["model"], "byte_fallback": False}}
        message = "has neither byte fallback .* nor a byte-level alphabet"
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(EEVEError, match=message):
        bases.load(str(tmp_path))


@pytest.mark.parametrize("kind", ["unigram", "no fallback", "no model"])
def test_a_sentencepiece_model_that_cannot_be_extended_is_refused(kind, model, tmp_path):
    proto = ModelProto.FromString(model)
    message = {
        "unigram": "is a UNIGRAM model",
        "no fallback": "has no byte fallback",
        "no model": "is no Sentence",
    }
    if kind == "unigram":
        proto.trainer_spec.model_type = 1
    elif kind == "no fallback":
        for n, piece in enumerate(proto.pieces):
            if piece.piece.startswith("<0x"):
                piece.piece = f"byte{n}"
    raw = b"{}" if kind == "no model" else proto.SerializeToString()
    (tmp_path / "tokenizer.model").write_bytes(raw)
    with pytest.raises(EEVEError, match=message[kind]):
        bases.load(str(tmp_path / "tokenizer.model"))


def gemma(directory: Path, state: dict, model: bytes, without: str | None = None) -> Path:
    """A base of Gemma's kind: its tab is a token of its own, in the place of its byte; `without` is missing besides."""
    vocab = {("\t" if token == "<0x09>" else token): i for token, i in state["model"]["vocab"].items()}
    vocab = {token: i for token, i in vocab.items() if token != without}
    directory.mkdir()
    raw = {**state, "model": {**state["model"], "vocab": vocab}}
    (directory / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "tokenizer.model").write_bytes(model)
    return directory


def test_a_base_whose_tab_is_no_byte_is_extended_and_its_sentencepiece_model_too(state, model, tmp_path):
    base = gemma(tmp_path / "base", state, model)
    file = write(tmp_path / "a.jsonl", ["안녕\t하세요 안녕 뷁 뷁" * 20])
    chosen = TokenizerSettings(
        base=str(base), output=str(tmp_path / "out"), corpus=[{"path": str(file)}],
        new_tokens=10, intermediate_vocab_size=50, min_count=2,
    )  # fmt: skip
    manifest = build(chosen)
    assert manifest["unreachable"] == 0 and manifest["sentencepiece"] is True
    before, after = (Tokenizer.from_file(str(each / "tokenizer.json")) for each in (base, tmp_path / "out"))
    text = "def f():\n\treturn\t1"
    assert after.encode(text).ids == before.encode(text).ids
    slow = SentencePieceProcessor(model_file=str(tmp_path / "out" / "tokenizer.model"))
    text = "a\t안녕\tb"
    assert slow.encode(text) == after.encode(text, add_special_tokens=False).ids


def test_a_base_with_byte_fallback_that_lacks_bytes_of_the_script_is_refused(state, model, tmp_path):
    base = gemma(tmp_path / "base", state, model, without="<0xEC>")
    with pytest.raises(EEVEError, match=r"lacks tokens for single bytes that Hangul is spelled with \(EC\)"):
        bases.load(str(base), ["Hangul"])
    bases.load(str(base), ["Latin"])
