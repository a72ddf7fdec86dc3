"""What the plugin's hooks and the checks that ask Axolotl refuse; and a trainer without its plugin."""

import json

import pytest
import torch
from axolotl.utils.dict import DictDefault
from transformers.utils import is_flash_attn_2_available

from eeve_axolotl import EEVEPlugin, checks
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import CORPUS_MANIFEST
from eeve_axolotl.stages import STAGES
from eeve_axolotl.trainer import EEVETrainer
from tests.conftest import extended


def config(**keys):
    return {"base_model": "org/model", "eeve": {"stage": 3}, **keys}


def test_a_missing_block_ends_the_run_in_one_sentence():
    with pytest.raises(SystemExit, match="eeve_axolotl: the config has no `eeve:` block; add"):
        EEVEPlugin().register(DictDefault(config(eeve=None)))


def test_a_corpus_made_with_another_tokenizer_is_refused_before_anything_is_loaded(
    tmp_path, base_tokenizer, base_tokenizer_directory
):
    ours = tmp_path / "ours"
    base_tokenizer.save_pretrained(ours)  # written again, it is still the same tokenizer
    other = tmp_path / "other"
    extended(base_tokenizer, ["가나"]).save_pretrained(other)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "00000.jsonl").write_text('{"text": "a"}\n')
    identity = tokenizer_identity(base_tokenizer_directory)
    manifest = {"tokenizer": {"directory": "ours", "identity": identity}, "longest_record": 100}
    (corpus / CORPUS_MANIFEST).write_text(json.dumps(manifest))
    cfg = DictDefault(config(datasets=[{"path": str(corpus), "type": "completion"}], sequence_len=512))
    EEVEPlugin().register(DictDefault({**cfg, "tokenizer_config": str(ours)}))
    with pytest.raises(SystemExit, match="was made with the tokenizer ours, which is not the one in"):
        EEVEPlugin().register(DictDefault({**cfg, "tokenizer_config": str(other)}))


def test_modules_to_save_must_be_those_of_the_stage(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    cfg = config(base_model=str(tmp_path), adapter="qlora", load_in_4bit=True)
    assert checks.modules_to_save(cfg, STAGES[6]) == ["embed_tokens", "lm_head"]
    assert checks.modules_to_save(cfg, STAGES[7]) == []
    checks.check_config({**cfg, "lora_modules_to_save": ["lm_head", "embed_tokens"]}, STAGES[6])
    with pytest.raises(EEVEError, match="contradicts stage 6, which trains embed_tokens and lm_head"):
        checks.check_config({**cfg, "lora_modules_to_save": ["lm_head"]}, STAGES[6])
    with pytest.raises(EEVEError, match="contradicts stage 7, which trains neither embedding matrix"):
        checks.check_config({**cfg, "lora_modules_to_save": ["lm_head"]}, STAGES[7])


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed")
def test_flash_attention_that_is_absent_is_told_with_what_to_install_or_set():
    """The hub is offline here, as on a GPU without a network."""
    checks.check_attention(config(attn_implementation="sdpa"))
    with pytest.raises(
        EEVEError, match=r"flash-attn is not installed .*install `eeve-axolotl\[flash-attn\]`"
    ):
        checks.check_attention(config(attn_implementation="flash_attention_2"))
    with pytest.raises(SystemExit, match="set `attn_implementation: sdpa`, without sample packing"):
        EEVEPlugin().pre_model_load(config(attn_implementation="flash_attention_2"))


class WithoutTable(torch.nn.Module):
    """A model that has the accessor, as every model of transformers, and nothing to give."""

    def get_input_embeddings(self):
        raise NotImplementedError


@pytest.mark.parametrize("model", [WithoutTable(), torch.nn.Linear(2, 2)])
def test_a_model_without_input_embeddings_ends_the_run_in_one_sentence(model):
    plugin = EEVEPlugin()
    plugin.register(DictDefault(config(eeve={"stage": 1})))
    with pytest.raises(
        SystemExit, match="eeve_axolotl: .* has no input embeddings .*: use a causal language model"
    ):
        plugin.post_model_build(None, model)


def test_the_trainer_without_its_plugin_does_not_train():
    trainer = EEVETrainer.__new__(EEVETrainer)  # nothing of a trainer is reached
    with pytest.raises(SystemExit, match="the plugin is not listed; add `plugins:"):
        trainer.train()
