"""What is said of a model's new tokens, rows and neighbours."""

import json

import pytest
import torch
from click.testing import CliRunner

from eeve_axolotl import embeddings
from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.inspection import evaluate, load, neighbours, row_norms
from eeve_axolotl.evaluation.scoring import score
from eeve_axolotl.evaluation.settings import PROMPTS, EvaluationSettings
from tests.conftest import extended, tiny_llama

WORDS = ["▁학교", "▁지금", "안녕"]


@pytest.fixture(scope="module")
def tokenizer(base_tokenizer):
    return extended(base_tokenizer, WORDS)


@pytest.fixture
def model(tokenizer):
    return tiny_llama(len(tokenizer), seed=3)


def always(model, token: int) -> None:
    """Make `token` the model's prediction everywhere: its logit is the hidden state's own norm, the rest nothing."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
        bias = torch.zeros(model.lm_head.weight.shape[0])
        bias[token] = 1
    model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)


def firsts(tokenizer, base: int) -> dict[int, int]:
    return {base + n: ids[0] for n, ids in enumerate(embeddings.subwords(tokenizer, base))}


def test_new_tokens_are_counted_where_the_model_predicts_them(model, tokenizer, base_tokenizer):
    base = len(base_tokenizer)
    school = tokenizer.convert_tokens_to_ids("▁학교")
    text = "학교 지금 학교"  # ▁학교 ▁지금 ▁학교
    always(model, school)
    found = score(model, tokenizer, [text], first_subwords=firsts(tokenizer, base)).new_tokens
    assert (found.targets, found.correct, found.first_subword, found.predicted) == (3, 2, 0, 3)


def test_a_model_that_still_predicts_first_subwords_is_told_apart(model, tokenizer, base_tokenizer):
    base = len(base_tokenizer)
    subwords = firsts(tokenizer, base)
    first = subwords[tokenizer.convert_tokens_to_ids("▁지금")]
    same = sum(
        subwords[tokenizer.convert_tokens_to_ids(word)] == first for word in ("▁학교", "▁지금", "▁학교")
    )
    always(model, first)
    found = score(model, tokenizer, ["학교 지금 학교"], first_subwords=subwords).new_tokens
    assert (found.correct, found.first_subword, found.predicted) == (0, same, 0)


def test_norms_are_of_old_and_new_rows(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[:32000] = 0.5
        model.get_input_embeddings().weight[32000:] = 1.0
    found = row_norms(model, 32000)["input_embeddings"]
    width = model.config.hidden_size
    assert found["old"]["mean_norm"] == pytest.approx(0.5 * width**0.5)
    assert found["new"]["mean_norm"] == pytest.approx(width**0.5)
    assert row_norms(model, None)["input_embeddings"]["new"] is None


def test_a_new_tokens_neighbour_is_the_row_that_is_like_it(model, tokenizer):
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[32000:] = weight[[100 + n for n in range(len(tokenizer) - 32000)]] * 3
    found = neighbours(model, tokenizer, 32000)
    assert found[tokenizer.convert_ids_to_tokens(32000)][0][0] == tokenizer.convert_ids_to_tokens(100)
    assert found[tokenizer.convert_ids_to_tokens(32000)][0][1] == pytest.approx(1.0)


def test_base_and_extended_model_before_training_stand_on_one_axis(tmp_path, tokenizer, base_tokenizer):
    """The extended model is the base with new rows started: made while evaluating, not by a run."""
    base, new = tmp_path / "base", tmp_path / "tokenizer"
    tiny_llama(len(base_tokenizer)).save_pretrained(base)
    base_tokenizer.save_pretrained(base)
    tokenizer.save_pretrained(new)
    (tmp_path / "ko.jsonl").write_text(json.dumps({"text": "학교 지금 안녕"}))
    settings = EvaluationSettings(texts={"Korean": str(tmp_path / "ko.jsonl")}, prompts=["안녕"])
    before = evaluate(str(base), settings, output=tmp_path / "base.json")
    after = evaluate(str(base), settings, tokenizer=str(new), base=tmp_path / "base.json")
    one, other = before["texts"]["Korean"], after["texts"]["Korean"]
    assert one["bytes"] == other["bytes"] and one["tokens"] > other["tokens"]
    assert one["new_tokens"] is None and other["new_tokens"]["targets"] == 3
    assert after["retention"]["Korean"] == pytest.approx(one["bits_per_byte"] / other["bits_per_byte"])


def test_a_model_that_is_not_there_is_told(tmp_path):
    (tmp_path / "ko.jsonl").write_text('{"text": "안녕"}')
    with pytest.raises(EEVEError, match="no model and tokenizer at"):
        evaluate(str(tmp_path / "missing"), EvaluationSettings(texts={"Korean": str(tmp_path / "ko.jsonl")}))


def test_the_command_reads_in_bf16_if_asked(tmp_path, tokenizer):
    model = tmp_path / "model"
    tiny_llama(len(tokenizer)).save_pretrained(model)
    tokenizer.save_pretrained(model)
    (tmp_path / "ko.jsonl").write_text('{"text": "학교 지금 안녕"}\n' * 3)
    bits = {}
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / f"{dtype}.json"
        arguments = [
            "evaluate",
            str(model),
            "--text",
            f"Korean={tmp_path / 'ko.jsonl'}",
            "--output",
            str(out),
        ]
        arguments += [
            "--dtype",
            dtype,
            "--limit",
            "2",
            "--batch-size",
            "1",
            "--prompt",
            "안녕",
            "--prompt",
            "학교",
        ]
        done = CliRunner().invoke(eeve, arguments)
        assert done.exit_code == 0, done.output
        found = json.loads(out.read_text())
        assert len(found["samples"]) == 2 and found["texts"]["Korean"]["bytes"] == 2 * len(
            "학교 지금 안녕".encode()
        )
        bits[dtype] = found["texts"]["Korean"]["bits_per_byte"]
    assert bits["bfloat16"] != bits["float32"]
    assert bits["bfloat16"] == pytest.approx(bits["float32"], rel=0.01)


def test_no_prompt_ends_in_a_blank():
    """The next word's own token begins with it: a model that has seen no lone blank would write garbage."""
    made = EvaluationSettings(texts={"Korean": "a"}, prompts=["오늘은 ", "Once there was \n", "a b"])
    assert made.prompts == ["오늘은", "Once there was", "a b"]
    assert EvaluationSettings(texts={"Korean": "a"}).prompts == [each.strip() for each in PROMPTS]


@pytest.mark.parametrize(
    "padding", [0, 2, 64]
)  # rows beyond the tokenizer: none, fewer than new tokens, and more
@pytest.mark.parametrize("manifest", [True, False])
def test_rows_of_a_padded_base_are_no_rows_of_new_tokens(
    tmp_path, base_tokenizer, tokenizer, padding, manifest
):
    base = len(base_tokenizer)
    tiny_llama(base + padding, seed=5).save_pretrained(tmp_path / "base")
    base_tokenizer.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    if manifest:
        content = {"base_vocab_size": base, "vocab_size": len(tokenizer), "counts": dict.fromkeys(WORDS, 1)}
        (tmp_path / "tokenizer" / "eeve_tokenizer.json").write_text(json.dumps(content))
    for rule in ("first_subword", "mean"):
        model, words = load(tmp_path / "base", tmp_path / "tokenizer", output_rows=rule)
        of_new = embeddings.subwords(words, base)
        head, rows = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        for n, ids in enumerate(of_new):
            assert torch.allclose(rows[base + n], rows[ids].mean(0), atol=1e-6)
            wanted = head[ids].mean(0) if rule == "mean" else head[ids[0]]
            assert torch.allclose(head[base + n], wanted, atol=1e-6)
        assert model.config.eeve_axolotl == {"base_vocab_size": base, "vocab_size": len(tokenizer)}
        assert len(rows) == max(base + padding, len(tokenizer))


def test_rows_that_were_trained_are_not_set_again(tmp_path, base_tokenizer, tokenizer):
    """By a stage, which leaves its mark, or by anything else that saved its tokenizer beside them."""
    model = tiny_llama(len(tokenizer), seed=7)
    rows = model.get_input_embeddings().weight.clone()
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model.config.eeve_axolotl = {"base_vocab_size": len(base_tokenizer), "vocab_size": len(tokenizer)}
    model.save_pretrained(tmp_path / "marked")
    base_tokenizer.save_pretrained(tmp_path / "marked")
    for trained in ("other", "marked"):
        for words in (None, tmp_path / "tokenizer"):
            if (trained, words) != ("marked", None):
                assert torch.equal(load(tmp_path / trained, words)[0].get_input_embeddings().weight, rows)


def test_a_rule_for_output_rows_that_there_is_not_is_told(tmp_path, base_tokenizer, tokenizer):
    tiny_llama(len(base_tokenizer)).save_pretrained(tmp_path / "base")
    base_tokenizer.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(EEVEError, match="choose one of mean, first_subword, first_character"):
        load(tmp_path / "base", tmp_path / "tokenizer", output_rows="distilled")
