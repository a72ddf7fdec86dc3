"""Tied embeddings through the `axolotl` command on a CPU: kept tied, or untied for the stages that need two."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eeve_axolotl.files import write_json
from eeve_axolotl.records import TOKENIZER_MANIFEST
from tests.conftest import extended, tiny_llama
from tests.e2e.helpers import axolotl, write_recipe

pytestmark = pytest.mark.e2e

BASE = 32000
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def directory(tmp_path_factory, base_tokenizer_directory, base_tokenizer):
    """`base`, a tied model; `ready`, the same with rows for the extended tokenizer in `tokenizer`; a text."""
    directory = tmp_path_factory.mktemp("tied")
    tokenizer = extended(base_tokenizer, ["▁학교", "▁안녕하세요"])
    tokenizer.save_pretrained(directory / "tokenizer")
    write_json(directory / "tokenizer" / TOKENIZER_MANIFEST, {"base_vocab_size": BASE})
    (directory / "tokenizer" / "tokenizer.model").write_bytes(b"of SentencePiece")
    shutil.copytree(base_tokenizer_directory, directory / "base")
    tiny_llama(BASE, tie_word_embeddings=True).save_pretrained(directory / "base")
    ready = tiny_llama(len(tokenizer), tie_word_embeddings=True)
    ready.config.eeve_axolotl = {"base_vocab_size": BASE, "vocab_size": len(tokenizer)}
    ready.save_pretrained(directory / "ready")
    AutoTokenizer.from_pretrained(directory / "tokenizer").save_pretrained(directory / "ready")
    line = json.dumps({"text": "안녕하세요 학교 and hello there " * 20}, ensure_ascii=False)
    (directory / "text.jsonl").write_text(f"{line}\n" * 20, encoding="utf-8")
    return directory


def train(directory, stage: int, base: str, **keys):
    """(weights before, model after in plain transformers, record) of one run."""
    recipe = write_recipe(directory, stage, base, **keys)
    done = axolotl(directory, "train", recipe, "--launcher", "python", timeout=400)
    assert done.returncode == 0, done.stdout[-4000:]
    before = AutoModelForCausalLM.from_pretrained(directory / base).state_dict()
    result = directory / f"stage{stage}"
    record = json.loads((result / "eeve_stage.json").read_text())
    if stage >= 6:
        done = axolotl(directory, "merge-lora", recipe, timeout=400)
        assert done.returncode == 0, done.stdout[-4000:]
        result = result / "merged"
    for each in {result, directory / f"stage{stage}", *(directory / f"stage{stage}").glob("checkpoint-*")}:
        for name in (TOKENIZER_MANIFEST, "tokenizer.model"):
            assert (each / name).read_bytes() == (directory / "tokenizer" / name).read_bytes(), each
    after, info = AutoModelForCausalLM.from_pretrained(result, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return before, after, record


@pytest.mark.parametrize("stage", [3, 4, 6, 7])
def test_stages_that_make_sense_keep_the_tie(directory, stage):
    before, after, record = train(directory, stage, "./ready")
    assert record["tied"] and not record["moved"]
    assert after.config.tie_word_embeddings is True
    assert after.get_input_embeddings().weight is after.get_output_embeddings().weight
    changed = (before[TABLE] != after.state_dict()[TABLE]).any(1)
    assert bool(changed[:BASE].any()) == (stage in (4, 6))
    assert bool(changed[BASE:].any()) == (stage in (3, 4, 6))


def test_untied_a_tied_model_runs_a_stage_that_needs_two_matrices(directory):
    """With rows beyond the tokenizer besides, which only the softmax sees: they do not train here."""
    keys = {"eeve": {"stage": 1, "untie": True}, "resize_token_embeddings_to_32x": True}
    before, after, record = train(directory, 1, "./base", **keys)
    assert record["input_embeddings"]["rows"] == BASE + 32
    assert record["input_embeddings"]["rows_trained"] == record["vocab_size"] - BASE < 32
    assert record["untied"] is True and record["tied"] is False and not record["moved"]
    assert after.config.tie_word_embeddings is False
    weights = after.state_dict()
    assert torch.equal(weights[TABLE][:BASE], before[TABLE])
    assert torch.equal(weights[HEAD][:BASE], before[TABLE])  # the copy, untouched in stage 1
    assert not torch.equal(weights[TABLE][BASE:], weights[HEAD][BASE:])


def test_a_tied_model_is_refused_in_one_sentence_where_a_stage_needs_two(directory):
    done = axolotl(
        directory, "train", write_recipe(directory, 1, "./base"), "--launcher", "python", timeout=400
    )
    assert done.returncode == 1
    assert "or set `eeve.untie: true` to give the model two matrices" in done.stdout
    assert "Traceback" not in done.stdout
