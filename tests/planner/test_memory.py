"""Planned bytes beside those that PyTorch allocates for the same stage of a small model."""

import dataclasses

import pytest
import torch

from benchmarks.allocated import peak_bytes, qlora, standing_bytes
from eeve_axolotl import rows
from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.losses.chunked import use_chunked_loss
from eeve_axolotl.planner.flops import flops_per_token
from eeve_axolotl.planner.memory import HeadLoss, Training, memory, trained
from eeve_axolotl.planner.shapes import shape_of
from eeve_axolotl.rows.freezing import optimizer_state_bytes
from eeve_axolotl.stages import STAGES, Layers
from tests.conftest import tiny_llama

BASE, ROWS = 1500, 2000
TRAINING = Training(
    rows=ROWS,
    base_rows=BASE,
    step=OptimizerStep(sequence_len=128, micro_batch=2, accumulation=1, processes=1),
    dtype=torch.float32,
    embeddings_dtype=torch.float32,
    lora_rank=64,  # as the recipes have: on so narrow a model the adapters keep much
)


def small_model():
    return tiny_llama(
        ROWS, hidden_size=128, num_hidden_layers=6, num_key_value_heads=4, attn_implementation="sdpa"
    )


def prepared(number: int, checkpointing: bool = False, head_loss: HeadLoss = HeadLoss.CHUNKED):
    model = small_model()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    model.config.use_cache = False
    if STAGES[number].internal_layers is Layers.QLORA:
        model = qlora(model, ["embed_tokens", "lm_head"] if number == 6 else [], TRAINING.lora_rank)
    frozen = rows.freeze(model, rows.row_mask(model, STAGES[number], BASE, ROWS))
    if head_loss is HeadLoss.CHUNKED:
        assert use_chunked_loss(model)
    return model, frozen, torch.optim.AdamW(list(frozen.trained_parameters().values()), fused=True)


def step(model, optimizer, ids) -> None:
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


@pytest.fixture(autouse=True)
def on_one_thread(one_thread):
    """All of these models are small."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "checkpointing"),
    [(number, False) for number in STAGES] + [(1, True), (5, True), (6, True), (7, True)],
)
@pytest.mark.parametrize("head_loss", [HeadLoss.CHUNKED, HeadLoss.PLAIN])
def test_the_planned_peak_is_what_is_allocated_within_a_tenth(number, checkpointing, head_loss):
    """What stands (weights, gradients, the optimiser's state), what a step adds to it (activations, logits), and
    the peak of both."""
    model, _, optimizer = prepared(number, checkpointing, head_loss)
    ids = torch.randint(0, ROWS, (TRAINING.step.micro_batch, TRAINING.step.sequence_len))
    step(model, optimizer, ids)  # gradients and state now exist, as in every later micro step
    added = peak_bytes(lambda: step(model, optimizer, ids))
    standing = standing_bytes(model, optimizer)
    planned = memory(
        shape_of(model.config.to_dict()),
        STAGES[number],
        dataclasses.replace(TRAINING, checkpointing=checkpointing, head_loss=head_loss),
    )
    fixed = planned.weights + planned.gradients + planned.optimizer
    # A quantised weight also has a table of its 16 values and one of 256 for its scales, whatever its size.
    quantised = STAGES[number].internal_layers is Layers.QLORA
    assert fixed == pytest.approx(standing, rel=0.01 if quantised else 0.001)
    assert planned.total - fixed == pytest.approx(added, rel=0.1)
    assert planned.total == pytest.approx(standing + added, rel=0.1)


@pytest.mark.parametrize("number", STAGES)
def test_what_trains_and_its_state_are_counted_exactly(number):
    model, frozen, optimizer = prepared(number)
    shape = shape_of(model.config.to_dict())
    ids = torch.randint(0, ROWS, (1, 16))
    step(model, optimizer, ids)
    counts = trained(shape, STAGES[number], TRAINING)
    parameters = frozen.trained_parameters().values()
    assert counts.total == sum(each.numel() for each in parameters)
    counters = 4 * len(parameters)  # each parameter's number of steps
    assert memory(shape, STAGES[number], TRAINING).optimizer == optimizer_state_bytes(optimizer) - counters


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_flops_are_those_of_pytorchs_own_counter(number, checkpointing):
    """Eager attention, whose products the counter sees, also computes the half that the causal mask discards: as
    much as we count at twice the length."""
    from torch.utils.flop_counter import FlopCounterMode

    checkpointing = checkpointing and STAGES[number].backward_through_layers
    model, _, _ = prepared(number, checkpointing)
    model.set_attn_implementation("eager")
    shape = shape_of(model.config.to_dict())
    ids = torch.randint(0, ROWS, (TRAINING.step.micro_batch, TRAINING.step.sequence_len))
    model(input_ids=ids, labels=ids).loss.backward()  # the first batch's losses are compared
    # The counter leaves out products that are added in place.
    in_place = {torch.ops.aten.addmm_: lambda total, one, other, **_: 2 * one[0] * one[1] * other[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    twice = dataclasses.replace(TRAINING.step, sequence_len=2 * TRAINING.step.sequence_len)
    training = dataclasses.replace(TRAINING, checkpointing=checkpointing, step=twice)
    planned = flops_per_token(shape, STAGES[number], training) * TRAINING.micro_batch_tokens
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.001)


def test_sharding_divides_what_it_shards():
    shape = shape_of(small_model().config.to_dict())
    step = dataclasses.replace(TRAINING.step, processes=4)
    whole = memory(shape, STAGES[5], dataclasses.replace(TRAINING, step=step))
    spread = memory(
        shape,
        STAGES[5],
        dataclasses.replace(TRAINING, step=step, shards=("weights", "gradients", "optimizer")),
    )
    assert (spread.weights, spread.optimizer) == (whole.weights / 4, whole.optimizer / 4)
    assert spread.gradients == whole.gradients / 8  # and no buckets of DDP's
    assert spread.activations == whole.activations
