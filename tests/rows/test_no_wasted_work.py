"""Nothing is computed that a stage does not need: no graph, no gradient, no product beyond it."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from eeve_axolotl import rows
from tests.rows.helpers import (
    EMBEDDING_STAGES,
    HIDDEN,
    NEW,
    VOCAB,
    batches,
    loss_of,
    mask_for,
    tiny_model,
)

IDS = batches(1)[0]
TOKENS = IDS.numel()


def frozen_model(stage: int, **config):
    model = tiny_model(attn_implementation="eager", **config)
    rows.freeze(model, mask_for(model, stage))
    return model


def flops(work) -> tuple[int, int]:
    """(of products with a weight, of attention's batched products)"""
    with FlopCounterMode(display=False) as counter:
        work()
    counts = {str(operation): count for operation, count in counter.get_flop_counts()["Global"].items()}
    attention = sum(count for operation, count in counts.items() if "bmm" in operation)
    return sum(counts.values()) - attention, attention


@pytest.mark.parametrize("stage, trained", [(2, NEW), (4, VOCAB)])
def test_stages_2_and_4_compute_a_forward_pass_and_the_heads_gradient_only(stage, trained):
    model = frozen_model(stage)
    with torch.no_grad():
        forward = flops(lambda: loss_of(model, IDS))
    whole = flops(lambda: loss_of(model, IDS).backward())
    assert whole == (forward[0] + 2 * TOKENS * trained * HIDDEN, forward[1])


@pytest.mark.parametrize("stage, trained", [(1, 0), (3, NEW), (5, VOCAB)])
def test_stages_1_3_and_5_compute_no_weight_gradient_of_frozen_parameters(stage, trained):
    model = frozen_model(stage)
    with torch.no_grad():
        forward = flops(lambda: loss_of(model, IDS))
    whole = flops(lambda: loss_of(model, IDS).backward())
    # Backward, each product with a weight costs one more product (towards its input), attention's two more.
    assert whole[0] == 2 * forward[0] + 2 * TOKENS * trained * HIDDEN
    assert whole[1] <= 3 * forward[1]


@pytest.mark.parametrize("stage", [2, 4])
def test_stages_2_and_4_build_no_graph_through_the_internal_layers(stage):
    model = frozen_model(stage)
    saved = []

    def keep(tensor):
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.model(input_ids=IDS).last_hidden_state
    assert not hidden.requires_grad and saved == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_stages_2_and_4_pass_no_gradient_down_though_something_asked_for_it(when):
    """transformers makes the embeddings' output require a gradient for adapters and reentrant checkpointing."""
    model = tiny_model(attn_implementation="eager")
    if when == "before":
        model.enable_input_require_grads()
    rows.freeze(model, mask_for(model, 2))
    if when == "before":
        assert not model.model(input_ids=IDS).last_hidden_state.requires_grad
        return
    model.enable_input_require_grads()
    with torch.no_grad():
        forward = flops(lambda: loss_of(model, IDS))
    with pytest.warns(UserWarning, match="gradient_checkpointing: false"):
        whole = flops(lambda: loss_of(model, IDS).backward())
    assert whole == (forward[0] + 2 * TOKENS * NEW * HIDDEN, forward[1])


@pytest.mark.filterwarnings("ignore:Only the output embeddings", "ignore:None of the inputs")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("stage", [2, 4])
def test_checkpointing_recomputes_nothing_in_stages_2_and_4(stage, reentrant):
    model = frozen_model(stage)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda *_: calls.append(1))
    loss_of(model, IDS).backward()
    assert len(calls) == len(model.model.layers)


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_only_what_trains_has_a_gradient_and_only_of_its_rows(stage):
    model = frozen_model(stage)
    loss_of(model, IDS).backward()
    table, head = {1: (NEW, 0), 2: (0, NEW), 3: (NEW, NEW), 4: (0, VOCAB), 5: (NEW, VOCAB)}[stage]
    shapes = [tuple(each.grad.shape) for each in model.parameters() if each.grad is not None]
    assert shapes == [(count, HIDDEN) for count in (table, head) if count]


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_the_mask_knows_whether_checkpointing_buys_anything(stage):
    assert mask_for(tiny_model(), stage).backward_through_layers is (stage in (1, 3, 5))


def test_no_memory_is_taken_for_the_gradient_of_the_whole_table():
    """The gradient of the table is as large as the rows that train, also for a moment."""
    model = tiny_model(vocab_size=4096)
    rows.freeze(model, mask_for(model, 1, vocab_size=VOCAB))
    largest = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if "embedding_dense_backward" in str(function):
                largest.append(tuple(result.shape))
            return result

    with Sizes():
        loss_of(model, IDS).backward()
    assert largest == [(NEW + 1, HIDDEN)]  # and one row for all ids that do not train
