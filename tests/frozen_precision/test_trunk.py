"""Frozen linear modules of real architectures in FP8: which ones, what they give, and what everybody else finds."""

import copy
import logging

import pytest
import torch
import torch.distributed as dist
from torch import nn

from eeve_axolotl import rows
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.frozen_precision import float8, hold_in_fp8, linear
from eeve_axolotl.frozen_precision.device import check_cards, check_device
from eeve_axolotl.frozen_precision.float8 import FP8, emulated
from eeve_axolotl.frozen_precision.linear import Float8Linear
from eeve_axolotl.losses.chunked import use_chunked_loss
from eeve_axolotl.stages import Layers, Rows, Stage
from tests.rows.helpers import (
    BASE,
    EMBEDDING_STAGES,
    NEW,
    VOCAB,
    batches,
    frozen_by_stage,
    loss_of,
    mask_for,
    moved,
    snapshot,
    tiny_model,
    train,
)

LOG = "axolotl.eeve.frozen_precision"


def held(stage: int = 3, family: str = "llama", **config):
    """A model in a stage with its layers in FP8, and its trunk."""
    model = tiny_model(family, **config)
    rows.freeze(model, mask_for(model, stage))
    return model, hold_in_fp8(model)


def adamw(model):
    return torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=1e-2, weight_decay=0.1
    )


def same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("family", "stage", "a_layer"),
    [
        *[
            ("llama", stage, 7) for stage in EMBEDDING_STAGES
        ],  # a head that trains, all or in part, and one that is frozen
        ("qwen2", 3, 7),
        ("gemma", 3, 7),
        ("phi", 3, 6),
        ("gpt_neox", 3, 4),
    ],
)
def test_the_linear_modules_of_the_layers_are_held_and_no_other(family, stage, a_layer):
    model, trunk = held(stage, family)
    head = next(name for name, each in model.named_modules() if each is model.get_output_embeddings())
    linears = {name for name, each in model.named_modules() if isinstance(each, nn.Linear)} - {head}
    assert set(trunk.modules) == linears and len(linears) == 2 * a_layer
    assert not isinstance(model.get_output_embeddings(), Float8Linear)
    assert all(each.matrix.values.dtype == FP8 for each in trunk.modules.values())
    assert trunk.held_bytes < trunk.own_bytes / 3  # a quarter of 32 bits, and the scales


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "phi", "gpt_neox"])
def test_loss_and_gradients_are_the_models_own_within_the_noise_of_8_bits(family):
    """Biases of linear modules (qwen2, phi, gpt_neox) and tied embeddings (qwen2) too."""
    stage = 3
    plain = tiny_model(family)
    model = copy.deepcopy(plain)
    (ids,) = batches(1)
    gradients = []
    for each in (plain, model):
        frozen = rows.freeze(each, mask_for(each, stage))
        if each is model:
            hold_in_fp8(each)
        loss = loss_of(each, ids)
        loss.backward()
        gradients.append((loss.item(), {k: v.grad for k, v in frozen.trained_parameters().items()}))
    (loss, exact), (rounded, found) = gradients
    assert rounded != loss and rounded == pytest.approx(loss, rel=2e-3)
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        assert 0 < (found[name] - gradient).norm() < 0.15 * gradient.norm(), name


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_training_leaves_the_models_own_bits_and_the_8_bits_as_they_are(stage):
    model = tiny_model()
    before = snapshot(model)
    frozen = rows.freeze(model, mask_for(model, stage))
    assert use_chunked_loss(model)
    first = frozen.fingerprint()
    trunk = hold_in_fp8(model)
    small = {name: each.matrix.values.view(torch.uint8).clone() for name, each in trunk.modules.items()}
    matrices = {name: each.matrix for name, each in trunk.modules.items()}
    optimizer = frozen.protect(adamw(model))
    losses = train(model, optimizer, batches(1) * 8, clip=0.5)
    assert losses[-1] < losses[0]
    after = snapshot(model)
    assert list(after) == list(before)
    frozen_moved, trained_moved = moved(before, after, frozen_by_stage(model, stage))
    assert frozen_moved == 0
    # All that the stage trains, by weight decay at least: nothing of it was held.
    assert trained_moved == {1: NEW, 2: NEW, 3: 2 * NEW, 4: VOCAB, 5: NEW + VOCAB}[stage]
    first.check(frozen.fingerprint())
    # Quantised once: the same objects with the same bits.
    for name, each in trunk.modules.items():
        assert each.matrix is matrices[name]
        assert torch.equal(each.matrix.values.view(torch.uint8), small[name])


def test_a_changed_bit_of_a_weight_that_is_held_apart_is_seen():
    model, trunk = held()
    frozen = model._eeve_frozen_rows
    before = frozen.fingerprint()
    name, module = next(iter(trunk.modules.items()))
    module.weight.data.view(torch.int32)[3, 5] ^= 1
    with pytest.raises(rows.FrozenMovedError) as raised:
        before.check(frozen.fingerprint())
    assert raised.value.evidence == {f"{name}.weight": "changed"}


def test_stages_2_and_4_keep_nothing_for_a_backward_pass_of_the_layers():
    model, _ = held(4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        loss = loss_of(model, batches(1)[0])
    sizes = {each.shape[-1] for each in kept if each.dim()}
    assert 48 not in sizes  # of the MLP's inside
    loss.backward()
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    (ids,) = batches(1)
    gradients = []
    for checkpointing in (False, True):
        model, _ = held()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        loss_of(model, ids).backward()
        gradients.append(model.model.embed_tokens.trained_rows.grad)
    assert torch.equal(*gradients)


def test_it_computes_in_the_dtype_that_the_plain_module_has():
    model = tiny_model(dtype=torch.bfloat16).float()
    model.model.layers.to(torch.bfloat16)
    plain = model.model.layers[0].self_attn.q_proj
    module = linear.hold(copy.deepcopy(plain).requires_grad_(False))
    hidden = torch.randn(2, 3, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found, exact = module(hidden), plain(hidden)
    assert found.dtype == exact.dtype == torch.bfloat16 and found.shape == exact.shape
    assert module(hidden.bfloat16()).dtype == torch.bfloat16
    assert module(hidden).dtype == torch.float32


def test_what_is_loaded_is_what_is_computed_with():
    model, _ = held()
    other = tiny_model(seed=1)
    (ids,) = batches(1)
    model.load_state_dict(other.state_dict())
    assert same(model.state_dict(), other.state_dict())
    twin = tiny_model(seed=1)
    rows.freeze(twin, mask_for(twin, 3))
    hold_in_fp8(twin)
    assert torch.equal(loss_of(model, ids), loss_of(twin, ids))


def test_moving_the_model_moves_what_it_computes_with_and_casts_nothing():
    model, trunk = held()
    before = snapshot(model)
    model.to(torch.bfloat16)
    for name, module in trunk.modules.items():
        assert module.matrix.values.dtype == FP8 and module.matrix.scale.dtype == torch.float32
        assert torch.equal(module.weight, before[f"{name}.weight"])
    assert list(model.state_dict()) == list(before)
    model.to("meta")
    assert all(each.matrix.values.is_meta for each in trunk.modules.values())
    assert all(each.weight.device == linear.HOST for each in trunk.modules.values())


def test_taken_off_the_model_is_what_it_was():
    plain = tiny_model()
    (ids,) = batches(1)
    model, trunk = held()
    modules = dict(trunk.modules)
    trunk.remove()
    assert same(model.state_dict(), plain.state_dict())
    assert all(type(each) is nn.Linear and "matrix" not in vars(each) for each in modules.values())
    assert not hasattr(model, "_ddp_params_and_buffers_to_ignore")
    assert torch.equal(loss_of(model, ids), loss_of(plain, ids))


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_ddp_and_a_step_do_without_the_models_own_weights(alone):
    """On a GPU they lie on another device. Here that is the meta device, where nothing can be computed or sent."""
    twin, trunk = held()
    for module in trunk.modules.values():
        module.weight = nn.Parameter(module.weight.to("meta"), requires_grad=False)
    assert {each.device.type for each in twin.parameters()} == {"cpu", "meta"}
    twin.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    wrapped = nn.parallel.DistributedDataParallel(twin)
    model, _ = held()
    data = batches(3)
    expected = train(model, adamw(model), data, clip=1.0)
    assert train(wrapped, adamw(twin), data, clip=1.0) == expected
    assert torch.equal(twin.model.embed_tokens.trained_rows, model.model.embed_tokens.trained_rows)


def test_what_trains_is_never_held():
    model = tiny_model()
    stage = Stage("custom", Rows.NONE, Rows.NONE, Layers.FULL)
    rows.freeze(model, rows.row_mask(model, stage, BASE))
    with pytest.raises(EEVEError, match="has no frozen linear module in bf16 or fp32"):
        hold_in_fp8(model)
    model.model.layers[0].requires_grad_(False)
    trunk = hold_in_fp8(model)
    assert {name.split(".")[2] for name in trunk.modules} == {"0"}
    assert not any(each.weight.requires_grad for each in trunk.modules.values())


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda layer: setattr(layer.mlp, "gate", nn.Linear(32, 16)), "mlp.gate"),
        (lambda layer: setattr(layer.mlp, "small", nn.Linear(32, 8)), "mlp.small"),
        (lambda layer: setattr(layer.mlp, "sixteen", nn.Linear(32, 16, dtype=torch.float16)), "mlp.sixteen"),
        (lambda layer: setattr(layer.mlp, "mixer", MambaMixer()), "mlp.mixer.in_proj"),
        (lambda layer: setattr(layer.mlp, "own", Own(32, 16)), "mlp.own"),
        (lambda layer: setattr(layer.mlp.up_proj, "forward", lambda hidden: hidden), "mlp.up_proj"),
        (lambda layer: setattr(layer.mlp.up_proj, "weight", layer.mlp.gate_proj.weight), "mlp.up_proj"),
    ],
    ids=["a router", "sides that do not fit", "16 bits of another kind", "a mixer", "a class of its own",
         "a patched forward", "a shared weight"],
)  # fmt: skip
def test_what_is_not_plainly_a_product_stays_as_it_is(change, left):
    model = tiny_model()
    change(model.model.layers[0])
    rows.freeze(model, mask_for(model, 3))
    module = model.get_submodule(f"model.layers.0.{left}")
    kind = type(module)
    trunk = hold_in_fp8(model)
    assert f"model.layers.0.{left}" not in trunk.modules and type(module) is kind
    assert "model.layers.1.mlp.up_proj" in trunk.modules


class Own(nn.Linear):
    """A linear module that may compute something else."""


class MambaMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_proj = nn.Linear(32, 32)


def test_it_is_said_what_is_held_and_that_a_cpu_emulates(caplog):
    with caplog.at_level(logging.INFO, LOG):
        _, trunk = held()
    told = [each.getMessage() for each in caplog.records if each.name == LOG]
    assert told[0].startswith("frozen_precision: fp8 for 14 matrices of the frozen layers, ")
    assert "FP8 is emulated on this CPU" in told[1]
    record = trunk.record()
    assert record["emulated"] and record["matrices"] == 14 and record["parameters"] == trunk.parameters


@pytest.mark.parametrize(
    ("product", "says"),
    [
        (lambda left, a, right, b: emulated(left, a, right, torch.ones_like(b)), "wrong by .*more than 8 bits explain"),
        (lambda left, a, right, b: emulated(left, a, right, b) * float("nan"), "that are wrong by nan"),
        (lambda *_: torch.ones(2, 2) @ torch.ones(3, 3), r"torch\._scaled_mm says mat1 and mat2 shapes"),
    ],
    ids=["without the matrix's scales", "not finite", "no kernel"],
)  # fmt: skip
def test_a_device_that_computes_something_else_is_refused(product, says, monkeypatch):
    monkeypatch.setattr(float8, "_product", lambda device: product)
    with pytest.raises(EEVEError, match=says):
        held()


def test_a_device_or_a_card_that_cannot_is_refused(monkeypatch):
    with pytest.raises(EEVEError, match="needs an NVIDIA GPU with FP8, and the model is on mps"):
        check_device(torch.device("mps"))
    with pytest.raises(EEVEError, match="no GPU is seen here"):
        check_cards()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "NVIDIA A100-SXM4-80GB")
    capabilities = [(8, 9), (9, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capabilities[number])
    check_cards()
    capabilities[1] = (8, 0)
    with pytest.raises(
        EEVEError, match=r"A100-SXM4-80GB has 8\.0; remove `frozen_precision`, or use such a GPU"
    ):
        check_cards()
    check_device(torch.device("cuda", 0))
    with pytest.raises(EEVEError, match=r"has 8\.0"):
        check_device(torch.device("cuda", 1))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(EEVEError, match="AMD's GPUs"):
        check_cards()
