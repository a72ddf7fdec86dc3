"""Bits per byte: every token predicted once, whatever the window and the batch."""

import json
import math

import pytest
import torch

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.scoring import read_texts, score
from tests.conftest import tiny_llama

TEXTS = ["Hello, the weather is nice today.", "안녕하세요, 오늘은 날씨가 좋네요.", "x"]


@pytest.fixture(scope="module")
def model(base_tokenizer):
    return tiny_llama(len(base_tokenizer))


def test_a_model_that_knows_nothing_needs_the_logarithm_of_the_vocabulary(model, base_tokenizer):
    import copy

    uniform = copy.deepcopy(model)
    torch.nn.init.zeros_(uniform.lm_head.weight)
    found = score(uniform, base_tokenizer, TEXTS)
    assert found.nats == pytest.approx(found.tokens * math.log(len(base_tokenizer)), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(
        found.nats / math.log(2) / sum(len(t.encode()) for t in TEXTS)
    )


def test_the_score_is_the_models_own_loss(model, base_tokenizer):
    ids = torch.tensor(
        [[base_tokenizer.bos_token_id, *base_tokenizer(TEXTS[1], add_special_tokens=False).input_ids]]
    )
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    assert score(model, base_tokenizer, [TEXTS[1]]).nats == pytest.approx(
        float(loss) * (ids.shape[1] - 1), rel=1e-5
    )


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_batch_does_not_change_the_score(model, base_tokenizer, batch_size):
    assert score(model, base_tokenizer, TEXTS, batch_size=batch_size).nats == pytest.approx(
        score(model, base_tokenizer, TEXTS, batch_size=3).nats, rel=1e-5
    )


@pytest.mark.parametrize("max_length", [2, 5, 9])
def test_a_long_text_is_read_in_windows_and_no_token_is_left_out_or_counted_twice(
    model, base_tokenizer, max_length
):
    torch.nn.init.zeros_(model.lm_head.weight)  # then a token costs the same in any context
    found = score(model, base_tokenizer, TEXTS, max_length=max_length)
    assert found.nats == pytest.approx(found.tokens * math.log(len(base_tokenizer)), rel=1e-5)


def test_tokens_and_characters_are_those_of_the_text(model, base_tokenizer):
    found = score(model, base_tokenizer, TEXTS[:2])
    assert found.tokens == 26 + 8  # paper, Table 1
    assert found.tokens_per_character == found.tokens / (len(TEXTS[0]) + len(TEXTS[1]))


def test_held_out_text_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert read_texts(path) == TEXTS and read_texts(path, limit=2) == TEXTS[:2]


def test_held_out_text_may_be_compressed_parquet_or_a_directory(tmp_path):
    import gzip

    import pyarrow as pa
    from pyarrow import parquet

    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:2]))
    parquet.write_table(pa.table({"text": TEXTS[2:]}), tmp_path / "b.parquet")
    assert read_texts(tmp_path / "a.jsonl.gz") == TEXTS[:2]
    assert read_texts(tmp_path / "b.parquet") == TEXTS[2:]
    assert read_texts(tmp_path) == TEXTS and read_texts(tmp_path, limit=1) == TEXTS[:1]


@pytest.mark.parametrize("content, message", [
    (None, "does not exist"), ("", "is empty"), ("[1]\n", "line 1: not a JSON object"), ('{"text": ""}\n', "is empty"),
])  # fmt: skip
def test_held_out_text_that_cannot_be_used_says_so(tmp_path, content, message):
    path = tmp_path / "held_out.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EEVEError, match=message):
        read_texts(path)


@pytest.mark.parametrize("max_length", [3, 64])
def test_documents_have_their_own_figures_in_the_texts_order(model, base_tokenizer, max_length):
    found = score(model, base_tokenizer, TEXTS, batch_size=2, max_length=max_length).documents
    alone = [score(model, base_tokenizer, [text], max_length=max_length) for text in TEXTS]
    assert found.nats == pytest.approx([each.nats for each in alone], rel=1e-5)
    assert found.bytes == [len(text.encode()) for text in TEXTS]
    again = score(model, base_tokenizer, ["", *TEXTS]).documents
    other = score(model, base_tokenizer, [TEXTS[0] + TEXTS[1], TEXTS[2]]).documents
    assert again.sha256 == found.sha256 != other.sha256
