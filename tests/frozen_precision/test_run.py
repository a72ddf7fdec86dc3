"""Frozen layers in FP8 in the stages of a run: when they are, when they are no more, and which machine is refused."""

from types import SimpleNamespace

import pytest
import torch
from axolotl.utils.dict import DictDefault
from torch import nn

from eeve_axolotl import EEVEPlugin
from eeve_axolotl.args import EEVESettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.frozen_precision.linear import Float8Linear
from eeve_axolotl.run import StageRun
from eeve_axolotl.vocabulary import Vocabulary
from tests.rows.helpers import BASE, VOCAB, batches, loss_of, snapshot, tiny_model

WHOLE = {"input_embeddings": "new", "output_embeddings": "new", "internal_layers": "full"}


def run_of(model, *stages) -> StageRun:
    settings = EEVESettings.model_validate({"stages": [*stages], "frozen_precision": "fp8"})
    run = StageRun(settings, vocabulary=Vocabulary(BASE, VOCAB, VOCAB))
    run.freeze(model)
    return run


def held(model) -> list[Float8Linear]:
    return [each for each in model.modules() if isinstance(each, Float8Linear)]


def test_a_run_quantises_once_before_its_first_step_and_its_proof_is_of_the_bases_own_bits(tmp_path):
    model = tiny_model()
    before = snapshot(model)
    run = run_of(model, 1, 3)
    assert not held(model)  # what is fingerprinted first is what was loaded
    run.begin()
    matrices = [each.matrix for each in held(model)]
    assert len(matrices) == 14 and run.record["frozen_precision"]["matrices"] == 14
    optimizer = torch.optim.AdamW(list(run.frozen.trained_parameters().values()))
    run.record["steps"] = 1
    run.finish(tmp_path, optimizer)
    run.enter(1, model)
    run.begin()
    assert [each.matrix for each in held(model)] == matrices  # the same objects
    assert run.record["frozen_precision"]["matrices"] == 14
    held(model)[3].weight.data.view(torch.int32)[0, 0] ^= 1
    with pytest.raises(RuntimeError, match="What this stage freezes has changed: .*proj.weight"):
        run.finish(tmp_path, optimizer)
    assert [name for name, value in snapshot(model).items() if not torch.equal(value, before[name])]


def test_a_stage_that_trains_layers_gets_them_as_they_were_and_is_no_place_for_it():
    plain, model = tiny_model(), tiny_model()
    run = run_of(model, 1, WHOLE)
    run.begin()
    assert held(model)
    run.enter(1, model)
    assert run.trunk is None and not held(model)
    assert type(model.model.layers[0].mlp.up_proj) is nn.Linear
    assert torch.equal(loss_of(model, batches(1)[0]), loss_of(plain, batches(1)[0]))
    with pytest.raises(
        EEVEError, match="is for layers that are frozen, and stage custom trains the internal"
    ):
        run.begin()


@pytest.mark.parametrize(
    "keys",
    [{}, {"inference": True}, {"is_preprocess": True}, {"use_ray": True}],
    ids=lambda keys: [*keys, "train"][0],
)
def test_a_gpu_without_fp8_is_refused_where_it_would_train(keys, monkeypatch):
    cfg = DictDefault({"base_model": "org/model", "eeve": {"stage": 3, "frozen_precision": "fp8"}, **keys})
    EEVEPlugin().register(DictDefault(cfg))  # without a GPU nothing is known, and a CPU emulates it
    a100 = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_capability=lambda _: (8, 0),
        get_device_name=lambda _: "NVIDIA A100",
    )
    monkeypatch.setattr("eeve_axolotl.frozen_precision.device.torch.cuda", a100)
    if keys:
        EEVEPlugin().register(DictDefault(cfg))
    else:
        with pytest.raises(SystemExit, match=r"NVIDIA A100 has 8\.0; remove `frozen_precision`"):
            EEVEPlugin().register(DictDefault(cfg))
