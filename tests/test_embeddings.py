"""Where new rows start (paper 2.2)."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from eeve_axolotl import embeddings
from eeve_axolotl.errors import EEVEError
from tests.conftest import extended, tiny_llama

BASE = 32000
WORDS = ["하지", "▁학교", "갂", "▁갂", "▁지금"]  # in the base: 하 지 학 교; not in the base: 갂


@pytest.fixture(scope="module")
def tokenizer(base_tokenizer):
    return extended(base_tokenizer, WORDS)


def prepared(tokenizer, dtype=torch.float32, **config):
    model = tiny_llama(BASE, **config).to(dtype)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model


def pieces(base_tokenizer, text):
    """Ids of `text` as the base writes it inside a word: without the leading ▁ that a text begins with."""
    return base_tokenizer.convert_tokens_to_ids(list(text))


def test_the_truncated_tokenizer_is_the_base_tokenizer(tokenizer, base_tokenizer):
    cut = embeddings.truncated(tokenizer, BASE)
    for text in ["안녕하세요, 오늘은 날씨가 좋네요.", "Hello, the weather is nice today.", "  갂 \n\t→ 日本"]:
        assert (
            cut.encode(text, add_special_tokens=False).ids
            == base_tokenizer(text, add_special_tokens=False).input_ids
        )


def test_subwords_are_the_base_tokenizers(tokenizer, base_tokenizer):
    subwords = dict(zip(range(BASE, len(tokenizer)), embeddings.subwords(tokenizer, BASE), strict=True))
    bytes_of = base_tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "갂".encode()])
    boundary = base_tokenizer.convert_tokens_to_ids("▁")
    new = {token: tokenizer.convert_tokens_to_ids(token) for token in ["하지", "▁학교", "갂", "▁갂"]}
    assert subwords[new["하지"]] == pieces(base_tokenizer, "하지")
    assert subwords[new["▁학교"]] == [boundary, *pieces(base_tokenizer, "학교")]
    assert subwords[new["갂"]] == bytes_of
    assert subwords[new["▁갂"]] == [boundary, *bytes_of]


def test_an_input_row_is_the_mean_of_its_subwords_rows(tokenizer, base_tokenizer):
    model = prepared(tokenizer)
    embeddings.initialise(model, tokenizer, BASE, BASE)
    rows = model.get_input_embeddings().weight
    torch.testing.assert_close(
        rows[tokenizer.convert_tokens_to_ids("하지")], rows[pieces(base_tokenizer, "하지")].mean(0)
    )


def test_the_literal_rule_copies_the_first_subwords_output_row(tokenizer, base_tokenizer):
    model = prepared(tokenizer)
    embeddings.initialise(model, tokenizer, BASE, BASE, output="first_subword")
    rows = model.get_output_embeddings().weight
    word, boundary = tokenizer.convert_tokens_to_ids("▁학교"), base_tokenizer.convert_tokens_to_ids("▁")
    assert torch.equal(rows[word], rows[boundary])
    syllable, byte = tokenizer.convert_tokens_to_ids("갂"), base_tokenizer.convert_tokens_to_ids("<0xEA>")
    assert torch.equal(rows[syllable], rows[byte])


def test_our_rule_skips_a_bare_boundary_and_keeps_a_characters_bytes_together(tokenizer, base_tokenizer):
    model = prepared(tokenizer)
    report = embeddings.initialise(model, tokenizer, BASE, BASE, output="first_character")
    rows = model.get_output_embeddings().weight
    assert torch.equal(rows[tokenizer.convert_tokens_to_ids("▁학교")], rows[pieces(base_tokenizer, "학")[0]])
    assert torch.equal(rows[tokenizer.convert_tokens_to_ids("하지")], rows[pieces(base_tokenizer, "하")[0]])
    spelled = rows[base_tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "갂".encode()])].mean(
        0
    )
    torch.testing.assert_close(rows[tokenizer.convert_tokens_to_ids("▁갂")], spelled)
    literal = embeddings.initialise(prepared(tokenizer), tokenizer, BASE, BASE, output="first_subword")
    assert report.distinct_output_rows > literal.distinct_output_rows


def test_means_are_computed_in_fp32_for_bf16_weights(tokenizer, base_tokenizer):
    model = prepared(tokenizer, torch.bfloat16)
    embeddings.initialise(model, tokenizer, BASE, BASE)
    rows = model.get_input_embeddings().weight
    sources = rows[embeddings.subwords(tokenizer, BASE)[tokenizer.convert_tokens_to_ids("▁갂") - BASE]]
    assert torch.equal(rows[tokenizer.convert_tokens_to_ids("▁갂")], sources.float().mean(0).bfloat16())


def test_old_rows_and_rows_of_the_checkpoint_stay(tokenizer):
    model = prepared(tokenizer)
    before = [model.get_input_embeddings().weight.clone(), model.get_output_embeddings().weight.clone()]
    start = BASE + 2
    embeddings.initialise(model, tokenizer, BASE, start)
    after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:start], new[:start])
        assert not torch.equal(old[start:], new[start:])


def test_an_added_token_gets_the_subwords_of_its_text(tokenizer, base_tokenizer):
    import copy

    with_special = copy.deepcopy(tokenizer)
    with_special.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    ids = embeddings.subwords(with_special, BASE)[-1]
    assert base_tokenizer.decode(ids).strip() == "<|im_end|>"


def test_tied_embeddings_are_set_once_by_the_input_rule(tokenizer, base_tokenizer):
    model = prepared(tokenizer, tie_word_embeddings=True)
    embeddings.initialise(model, tokenizer, BASE, BASE, output="first_subword")
    rows = model.get_output_embeddings().weight
    torch.testing.assert_close(
        rows[tokenizer.convert_tokens_to_ids("하지")], rows[pieces(base_tokenizer, "하지")].mean(0)
    )


def test_a_tokenizer_that_is_not_bpe_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    unigram = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("a", -1.0)], unk_id=0)))
    with pytest.raises(EEVEError, match="Unigram.*BPE"):
        embeddings.truncated(unigram, 1)


def test_the_papers_table_1_on_the_base_tokenizer(base_tokenizer):
    assert len(base_tokenizer.tokenize("안녕하세요, 오늘은 날씨가 좋네요.")) == 26
    assert len(base_tokenizer.tokenize("Hello, the weather is nice today.")) == 8


def test_rows_without_a_token_are_left_as_they_are(base_tokenizer):
    """Ids may have holes: of 32,010 rows, 32,003 and 32,007 have a token."""
    state = json.loads(base_tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] |= {"하지": BASE + 3, "학교": BASE + 7}
    state["model"]["merges"] += [["하", "지"], ["학", "교"]]
    holes = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    model = tiny_llama(BASE)
    model.resize_token_embeddings(BASE + 10, mean_resizing=False)
    before = model.get_input_embeddings().weight.detach().clone()
    report = embeddings.initialise(model, holes, BASE, BASE)
    changed = (model.get_input_embeddings().weight != before).any(dim=1).nonzero().ravel().tolist()
    assert changed == [BASE + 3, BASE + 7]
    assert report.without_token == 6 and "initialised 2 new rows" in str(report)


def test_a_base_row_that_is_not_finite_is_no_start(tokenizer, base_tokenizer):
    model = prepared(tokenizer)
    row = pieces(base_tokenizer, "하")[0]
    model.get_input_embeddings().weight.data[row, 0] = float("nan")
    with pytest.raises(EEVEError, match=f"row {row} of the base model's embeddings.*is not finite"):
        embeddings.initialise(model, tokenizer, BASE, BASE)
