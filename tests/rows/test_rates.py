"""A learning rate of their own for input and for output embeddings: whatever the optimiser and the schedule."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
from axolotl.utils import schedulers
from transformers import SchedulerType, get_scheduler

from eeve_axolotl import rows
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.stages import Layers, Rows, Stage
from tests.rows import optimizers
from tests.rows.helpers import (
    BASE,
    batches,
    frozen_by_stage,
    mask_for,
    moved,
    snapshot,
    tiny_model,
    train,
    whole_and_resumed,
)

pytestmark = pytest.mark.both_versions

WIDE = {"hidden_size": 128}  # at which bitsandbytes keeps its state in 8 bits
RATES = {"input_embeddings": 2e-2, "output_embeddings": 1e-3}
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
EVERYTHING = Stage("custom", Rows.NEW, Rows.ALL, Layers.FULL)


def adamw(model, lr=1e-2, **options):
    """Two groups, as transformers makes them: what decays, and biases and norms, which do not."""
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    plain = [each for name, each in trained.items() if "bias" in name or "norm" in name]
    decayed = [each for each in trained.values() if all(each is not other for other in plain)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([each for each in groups if each["params"]], lr=lr, **options)


def by_parameter(model, optimizer, key: str) -> dict[str, float]:
    names = {id(each): name for name, each in model.named_parameters()}
    found = {
        names[id(each)]: float(group[key]) for group in optimizer.param_groups for each in group["params"]
    }
    assert len(found) == sum(len(group["params"]) for group in optimizer.param_groups)
    return found


@pytest.mark.parametrize("name", optimizers.ALL)
def test_every_optimizer_moves_each_matrix_at_its_rate(name, tmp_path):
    if optimizers.missing(name):
        pytest.skip(f"needs {optimizers.missing(name)}")
    model = tiny_model(**WIDE)
    before = snapshot(model)
    frozen = rows.freeze(model, mask_for(model, 3))
    optimizer = frozen.protect(optimizers.build(name, model, tmp_path, decay=0.0))
    rows.give_rates(optimizer, frozen, {"input_embeddings": 1e-2, "output_embeddings": 1e-9})
    with torch.compiler.set_stance("force_eager"):
        train(model, optimizer, batches(14 if name == "schedule_free_radam" else 4))
    after = snapshot(model)
    assert moved(before, after, frozen_by_stage(model, 3))[0] == 0
    distance = {each: (after[each] - before[each]).abs().max().item() for each in (TABLE, HEAD)}
    assert distance[HEAD] < 1e-6 and distance[TABLE] > 100 * max(distance[HEAD], 1e-8)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_groups_are_split_by_matrix_and_alike_but_for_the_rate(family):
    model = tiny_model(family)
    frozen = rows.freeze(model, rows.row_mask(model, EVERYTHING, BASE))
    optimizer = frozen.protect(adamw(model))
    held, decay = by_parameter(model, optimizer, "lr"), by_parameter(model, optimizer, "weight_decay")
    rows.give_rates(optimizer, frozen, RATES)
    table, head = (
        next(name for name, each in model.named_modules() if each is module)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
    )
    expected = {
        name: RATES["input_embeddings"] if name.startswith(f"{table}.")
        else RATES["output_embeddings"] if name.startswith(f"{head}.")
        else 1e-2
        for name in held
    }  # fmt: skip
    assert by_parameter(model, optimizer, "lr") == expected
    assert by_parameter(model, optimizer, "weight_decay") == decay
    assert (f"{head}.bias" in expected) == (family == "phi")
    assert optimizer.param_groups[0]["lr"] == 1e-2  # what has no rate of its own comes first
    groups = [[*map(id, group["params"])] for group in optimizer.param_groups]
    rows.give_rates(optimizer, frozen, RATES)
    assert [[*map(id, group["params"])] for group in optimizer.param_groups] == groups


def test_with_no_rate_an_optimizer_stays_as_it_is():
    model = tiny_model()
    frozen = rows.freeze(model, mask_for(model, 5))
    optimizer = frozen.protect(adamw(model))
    before = [*optimizer.param_groups]
    rows.give_rates(optimizer, frozen, {})
    assert all(ours is theirs for ours, theirs in zip(optimizer.param_groups, before, strict=True))


def test_the_one_matrix_of_a_tied_model_is_in_one_group():
    model = tiny_model("tied_llama")
    frozen = rows.freeze(model, mask_for(model, 3))
    optimizer = frozen.protect(adamw(model))
    rows.give_rates(optimizer, frozen, {"input_embeddings": 0.5, "output_embeddings": 0.5})
    assert [(group["lr"], len(group["params"])) for group in optimizer.param_groups] == [(0.5, 1)]


def test_beside_adapters_the_copies_that_peft_trains_have_the_rates():
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head"])
    model = peft.get_peft_model(tiny_model(), config)
    frozen = rows.freeze(model, mask_for(model, 6))
    optimizer = frozen.protect(adamw(model))
    rows.give_rates(optimizer, frozen, RATES)
    rates = by_parameter(model, optimizer, "lr")
    assert {rate for name, rate in rates.items() if "embed_tokens.modules_to_save" in name} == {2e-2}
    assert {rate for name, rate in rates.items() if "lm_head.modules_to_save" in name} == {1e-3}
    assert {rate for name, rate in rates.items() if "lora_" in name} == {1e-2}


def test_the_peak_by_which_adamc_measures_its_decay_goes_with_the_rate(tmp_path):
    model = tiny_model()
    frozen = rows.freeze(model, mask_for(model, 3))
    optimizer = frozen.protect(optimizers.build("adamc", model, tmp_path))
    rows.give_rates(optimizer, frozen, RATES)
    peaks = by_parameter(model, optimizer, "max_lr")
    assert peaks == by_parameter(model, optimizer, "lr") and len({*peaks.values()}) == 2


def test_an_optimizer_that_lacks_the_matrix_or_has_no_rates_is_refused():
    model = tiny_model()
    frozen = rows.freeze(model, rows.row_mask(model, EVERYTHING, BASE))
    others = [each for name, each in model.named_parameters() if each.requires_grad and "lm_head" not in name]
    with pytest.raises(EEVEError, match="AdamW holds nothing of the output embeddings"):
        rows.give_rates(torch.optim.AdamW(others), frozen, RATES)
    optimizer = adamw(model)
    for group in optimizer.param_groups:
        del group["lr"]
    with pytest.raises(EEVEError, match="AdamW has no learning rate for each group"):
        rows.give_rates(optimizer, frozen, RATES)


# With absolute limits (greedy) or one peak (one_cycle) a schedule is refused. Plateaus wait for a loss.
OF_TRANSFORMERS = [
    each.value for each in SchedulerType if each.value not in ("greedy", "reduce_lr_on_plateau")
]
OPTIONS = {
    "cosine_with_min_lr": {"min_lr": 1e-3},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 4},
}
OF_AXOLOTL = {
    "rex": lambda optimizer: schedulers.RexLR(optimizer, 1e-2, 0, total_steps=12, num_warmup_steps=3),
    "jagged": lambda optimizer: schedulers.JaggedLRRestartScheduler(
        optimizer, get_scheduler("cosine", optimizer, 3, 12), 4, 2
    ),
    "rex, min": lambda optimizer: schedulers.RexLR(optimizer, 1e-2, 1e-3, total_steps=12, num_warmup_steps=3),
    "cosine, min": lambda optimizer: schedulers.get_cosine_schedule_with_min_lr(optimizer, 3, 12, 0.1),
    "cosine, quadratic": lambda optimizer: schedulers.get_cosine_schedule_with_quadratic_warmup(
        optimizer, 3, 12
    ),
    "cosine, constant": lambda optimizer: schedulers.get_cosine_schedule_with_warmup_decay_constant(
        optimizer, 3, 12, constant_lr_ratio=0.8, min_lr_ratio=0.1
    ),
}


@pytest.mark.parametrize("name", [*OF_TRANSFORMERS, *OF_AXOLOTL])
def test_every_schedule_keeps_its_shape_at_each_rate(name):
    model = tiny_model()
    frozen = rows.freeze(model, rows.row_mask(model, EVERYTHING, BASE))
    optimizer = frozen.protect(adamw(model))
    rows.give_rates(optimizer, frozen, RATES)
    if name in OF_AXOLOTL:
        schedule = OF_AXOLOTL[name](optimizer)
    else:
        schedule = get_scheduler(name, optimizer, 3, 12, OPTIONS.get(name))
    peaks = [group["initial_lr"] for group in optimizer.param_groups]
    assert {*peaks} == {1e-2, *RATES.values()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimiser stepped
        for _ in range(11):
            shares = [group["lr"] / peak for group, peak in zip(optimizer.param_groups, peaks, strict=True)]
            assert shares == pytest.approx([shares[0]] * len(shares))
            schedule.step()


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_8bit", "adamw_bnb_8bit", "schedule_free_adamw"])
def test_a_resumed_run_with_rates_ends_at_the_same_bits(name, tmp_path):
    data = batches(6)

    def start():
        model = tiny_model(**WIDE)
        frozen = rows.freeze(model, mask_for(model, 5))
        optimizer = frozen.protect(optimizers.build(name, model, tmp_path))
        rows.give_rates(optimizer, frozen, RATES)
        return model, optimizer

    with torch.compiler.set_stance("force_eager"):
        whole, model = whole_and_resumed(start, data)
    expected, found = snapshot(whole), snapshot(model)
    assert all(torch.equal(expected[each], found[each]) for each in expected)


CHANGES = [
    ({"input_embeddings": 2e-2}, {"output_embeddings": 1e-3}),  # two groups in both, the other way round
    ({"input_embeddings": 2e-2}, RATES),
    (RATES, {**RATES, "input_embeddings": 3e-2}),  # the saved rate would stay
    (RATES, RATES),
]


@pytest.mark.parametrize("before, now", CHANGES)
def test_a_checkpoint_with_other_rates_is_refused_and_not_one_matrixs_momenta_given_to_the_other(before, now):
    def start(rates):
        model = tiny_model()
        frozen = rows.freeze(model, mask_for(model, 3))
        optimizer = frozen.protect(adamw(model))
        rows.give_rates(optimizer, frozen, rates)
        return model, optimizer

    model, optimizer = start(before)
    train(model, optimizer, batches(2))
    saved = optimizer.state_dict()
    optimizer = start(now)[1]
    if before == now:
        optimizer.load_state_dict(saved)
    else:
        with pytest.raises(EEVEError, match="learning rates of one embedding matrix are others .*0.02"):
            optimizer.load_state_dict(saved)
