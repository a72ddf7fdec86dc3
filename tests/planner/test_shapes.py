"""Shapes from a config alone: the counts of real models, and of one that is built for the purpose."""

import pytest
import torch

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.planner.configs import CONFIGS
from eeve_axolotl.planner.shapes import read_config, saved_bytes, shape_of
from eeve_axolotl.stages import STAGES
from tests.conftest import tiny_llama

# Parameters as the hub states them beside each model's safetensors.
PUBLISHED = {
    "upstage/SOLAR-10.7B-v1.0": 10_731_524_096,
    "microsoft/phi-2": 2_779_683_840,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "google/gemma-2-2b": 2_614_341_888,
}


def parameters(shape) -> int:
    return shape.embedding_parameters(shape.rows, shape.tied) + shape.linear_parameters + shape.other


@pytest.mark.parametrize("name", CONFIGS)
def test_a_packaged_config_has_the_published_number_of_parameters(name):
    assert parameters(shape_of(read_config(name))) == PUBLISHED[name]


@pytest.mark.parametrize("tied", [False, True])
def test_counts_are_those_of_the_model_itself(tied):
    model = tiny_llama(500, tie_word_embeddings=tied)
    shape = shape_of(model.config.to_dict())
    assert parameters(shape) == sum(each.numel() for each in model.parameters())
    assert (shape.rows, shape.hidden, shape.layers, shape.tied) == (500, 32, 2, tied)


def test_an_adapters_size_is_pefts(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = tiny_llama(500)
    shape = shape_of(model.config.to_dict())
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    assert shape.adapter_parameters(8) == trained


def test_what_a_frozen_layer_of_solars_keeps():
    """By hand: both norms in 32 bits; q, k, v, output and log-sum-exp of attention; gate, its activation and up."""
    kept = saved_bytes(read_config("upstage/SOLAR-10.7B-v1.0"), STAGES[1], torch.bfloat16)
    norms, attention, mlp = 2 * (4 * 4096 + 4), 2 * (4096 + 1024 + 1024 + 4096) + 4 * 32, 3 * 2 * 14_336
    assert kept.layer == norms + attention + mlp


def test_nothing_is_kept_where_nothing_runs_backward_through_the_layers():
    kept = saved_bytes(read_config("upstage/SOLAR-10.7B-v1.0"), STAGES[4], torch.bfloat16)
    assert kept.layer == 0
    assert kept.outside == 2 * 4096  # the head's input


def test_an_unknown_model_names_those_known():
    with pytest.raises(EEVEError, match=r"some/model is not known here.*SOLAR"):
        read_config("some/model")
