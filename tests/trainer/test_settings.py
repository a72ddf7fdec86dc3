"""Which keys of Axolotl's config a history tells."""

import pytest
from axolotl.utils.dict import DictDefault
from axolotl.utils.schemas.trl import TRLConfig
from axolotl.utils.schemas.vllm import VllmConfig
from pydantic import BaseModel

from eeve_axolotl.args import EEVESettings
from eeve_axolotl.trainer.settings import chosen

pytestmark = pytest.mark.both_versions


def test_what_nobody_set_is_not_told():
    filled_in = {
        "trl": TRLConfig().model_dump(exclude_none=True),  # validation makes blocks of nothing but defaults
        "vllm": VllmConfig().model_dump(exclude_none=True),
        "gradient_accumulation_steps": 1,  # Axolotl's default
        "flash_attention": None,
        "no_key_of_axolotl": 3,
    }
    written = {"base_model": "./base", "learning_rate": 3e-4, "sequence_len": 256, "bf16": False}
    found = chosen(DictDefault({**filled_in, **written}))
    assert found == written
    changed = chosen(DictDefault({"trl": TRLConfig(beta=0.5).model_dump(exclude_none=True)}))
    assert changed["trl"]["beta"] == 0.5


def test_a_block_that_may_not_be_empty_is_told(monkeypatch):
    """As ours, which must say what trains."""

    class Config(BaseModel):
        eeve: EEVESettings | None = None

    monkeypatch.setattr("eeve_axolotl.trainer.settings.merge_input_args", lambda: (None, Config))
    block = {"stage": 3, "text": "again"}
    assert chosen(DictDefault({"eeve": block})) == {"eeve": block}


def test_a_block_that_was_set_is_told_with_its_keys():
    datasets = [{"path": "./corpus", "type": "completion"}]
    assert chosen(DictDefault({"datasets": datasets}))["datasets"] == datasets
