"""Training a model with frozen rows equals, step by step, training a reference in which the new rows are a
table of their own and the old rows are constants. In the manner of Liger-Kernel's convergence tests."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from eeve_axolotl import rows
from eeve_axolotl.stages import STAGES, Rows
from tests.rows.helpers import (
    BASE,
    EMBEDDING_STAGES,
    batches,
    loss_of,
    mask_for,
    read_past_the_head,
    tiny_model,
)

STEPS = 12
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Reference:
    """Plain PyTorch: each matrix is put together from constants and a table that trains, anew every step."""

    def __init__(self, model, stage: int):
        self.model = model.requires_grad_(False)
        self.constants, self.tables = {}, {}
        for name, what in ((TABLE, STAGES[stage].input_embeddings), (HEAD, STAGES[stage].output_embeddings)):
            whole = model.get_parameter(name).detach()
            first = {Rows.NEW: BASE, Rows.ALL: 0, Rows.NONE: len(whole)}[what]
            self.constants[name] = whole[:first].clone()
            self.tables[name] = whole[first:].clone().requires_grad_(first < len(whole))

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: torch.cat([self.constants[name], self.tables[name]]) for name in self.tables}

    def loss(self, ids: torch.Tensor) -> torch.Tensor:
        return functional_call(self.model, self.weights(), (), {"input_ids": ids, "labels": ids}).loss

    def trained(self) -> list[torch.Tensor]:
        return [each for each in self.tables.values() if each.requires_grad]


def run(loss, parameters, data, make_optimizer) -> list[float]:
    parameters, losses = list(parameters), []
    optimizer = make_optimizer(parameters)
    for ids in data:
        value = loss(ids)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1, eps=1e-6)


@pytest.mark.parametrize(
    "dtype, losses_within, weights_within",
    # bf16 keeps 8 bits: a loss of about 4.6 and weights of about 0.1 have steps of 2**-6 and 2**-11.
    [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 2**-5, 2**-9)],
    ids=["fp32", "bf16"],
)
@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_masked_training_equals_a_separate_table_of_new_rows(stage, dtype, losses_within, weights_within):
    data = batches(2) * (STEPS // 2)  # seen again, so that the loss falls
    reference = Reference(tiny_model(dtype=dtype), stage)
    expected = run(reference.loss, reference.trained(), data, adamw)

    model = tiny_model(dtype=dtype)
    frozen = rows.freeze(model, mask_for(model, stage))
    found = run(lambda ids: loss_of(model, ids), frozen.trained_parameters().values(), data, adamw)

    assert expected[-1] < expected[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=losses_within)
    weights = model.state_dict()
    for name, whole in reference.weights().items():
        torch.testing.assert_close(weights[name], whole.detach(), rtol=0, atol=weights_within)
        assert torch.equal(weights[name][: len(reference.constants[name])], reference.constants[name])


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_gradients_under_autocast_equal_those_of_the_reference(stage):
    """Weights in fp32, products in bf16, as `bf16: auto` trains without bf16 weights."""
    ids = batches(1)[0]
    reference = Reference(tiny_model(), stage)
    model = tiny_model()
    rows.freeze(model, mask_for(model, stage))
    with torch.autocast("cpu", torch.bfloat16):
        reference.loss(ids).backward()
        loss_of(model, ids).backward()
    found = [each.grad for each in model.parameters() if each.requires_grad]
    expected = [each.grad for each in reference.trained()]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=2**-6, atol=2**-7 * other.abs().max().item())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
@pytest.mark.filterwarnings("ignore:Only the output embeddings", "ignore:None of the inputs")
def test_gradient_checkpointing_changes_no_gradient(stage, reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model()
        rows.freeze(model, mask_for(model, stage))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        loss_of(model, batches(1)[0]).backward()
        gradients.append([each.grad for each in model.parameters() if each.requires_grad])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("family", "stage"),
    [(family, stage) for family in ("llama", "phi") for stage in (1, 2, 3, 5)] + [("tied_llama", 3)],
)
def test_a_kernel_that_reads_the_weights_past_the_modules_trains_the_same_rows(family, stage):
    """Fused linear cross-entropy (Liger, cut cross-entropy) takes `lm_head.weight` itself."""
    gradients = []
    for past in (False, True):
        model = tiny_model(family)
        rows.freeze(model, mask_for(model, stage))
        if past:
            read_past_the_head(model)
        loss_of(model, batches(1)[0]).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-4, atol=1e-7)
