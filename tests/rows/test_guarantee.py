"""Frozen means frozen, in one process: whatever the optimiser, decay, clipping, dtype and history."""

from __future__ import annotations

import copy

import pytest
import torch

from eeve_axolotl import rows
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.stages import STAGES
from tests.rows import optimizers
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
    whole_and_resumed,
)

# Wide enough that bitsandbytes keeps 8-bit state for the new rows (it leaves out tensors below 4,096 elements).
WIDE = {"hidden_size": 128}


def adamw(model, **options):
    trained = [each for each in model.parameters() if each.requires_grad]
    return torch.optim.AdamW(trained, **{"lr": 1e-2, "weight_decay": 0.1, **options})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", optimizers.ALL)
def test_frozen_rows_survive_every_optimizer(name, dtype, tmp_path):
    """With weight decay, clipping and gradient accumulation."""
    if optimizers.missing(name):
        pytest.skip(f"needs {optimizers.missing(name)}")
    model = tiny_model(dtype=dtype, **WIDE)
    before = snapshot(model)
    frozen = rows.freeze(model, mask_for(model, 3))
    optimizer = frozen.protect(optimizers.build(name, model, tmp_path))
    first = frozen.fingerprint()
    # Some optimisers compile their step, for ten seconds each; eagerly they do the same arithmetic.
    with torch.compiler.set_stance("force_eager"):
        # RAdam moves nothing in its first five steps.
        steps = 14 if name == "schedule_free_radam" else 4
        train(model, optimizer, batches(steps), accumulate=2, clip=0.5)
    frozen_moved, trained_moved = moved(before, snapshot(model), frozen_by_stage(model, 3))
    assert frozen_moved == 0
    assert trained_moved >= NEW  # some optimisers warm up, or leave rows alone that no batch read
    first.check(frozen.fingerprint())


@pytest.mark.parametrize("decay", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_frozen_rows_survive_weight_decay(stage, decay):
    model = tiny_model()
    before = snapshot(model)
    rows.freeze(model, mask_for(model, stage))
    train(model, adamw(model, weight_decay=decay), batches(4))
    frozen_moved, trained_moved = moved(before, snapshot(model), frozen_by_stage(model, stage))
    assert frozen_moved == 0
    everything = {1: NEW, 2: NEW, 3: 2 * NEW, 4: VOCAB, 5: NEW + VOCAB}[stage]
    # Without decay a row of the input embeddings that no batch reads stays where it is.
    assert trained_moved == everything if decay else 0 < trained_moved <= everything


def test_momentum_of_an_earlier_stage_moves_nothing():
    """One optimiser carried from stage 4 (all rows of the head) into stage 2 (its new rows): with gradients
    that are zero rather than None its momentum and its decay would go on moving the old rows."""
    model = tiny_model()
    rows.freeze(model, mask_for(model, 4))
    optimizer = adamw(model)
    train(model, optimizer, batches(3))
    loss_of(model, batches(1)[0]).backward()
    optimizer.zero_grad(set_to_none=False)
    assert any(state["exp_avg"].abs().max() > 0 for state in optimizer.state.values())

    frozen = rows.freeze(model, mask_for(model, 2))
    before = snapshot(model)
    optimizer.add_param_group({"params": list(frozen.trained_parameters().values())})
    frozen.protect(optimizer)
    train(model, optimizer, batches(3, seed=2))
    assert moved(before, snapshot(model), frozen_by_stage(model, 2)) == (0, NEW)


def test_protect_takes_out_parameters_and_state_that_the_stage_does_not_train():
    """An optimiser built before the rows were frozen, over everything, and used already."""
    model = tiny_model()
    everything = adamw_over_all(model)
    train(model, everything, batches(2))
    everything.zero_grad(set_to_none=False)
    frozen = rows.freeze(model, mask_for(model, 4))
    frozen.protect(everything)
    before = snapshot(model)
    for parameter in model.parameters():  # what a wrapper that fills in missing gradients would do
        parameter.grad = torch.zeros_like(parameter)
    everything.step()
    assert moved(before, snapshot(model), frozen_by_stage(model, 4))[0] == 0
    held = {id(each) for group in everything.param_groups for each in group["params"]}
    assert held == {id(model.lm_head.weight)} == {id(each) for each in everything.state}


def adamw_over_all(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)


def test_protect_refuses_an_optimizer_that_holds_nothing_of_the_stage():
    model = tiny_model()
    optimizer = adamw_over_all(model)
    frozen = rows.freeze(model, mask_for(model, 3))
    with pytest.raises(EEVEError, match="build it after the rows are frozen"):
        frozen.protect(optimizer)


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_bnb_8bit", "lion_8bit", "adafactor", "muon"])
def test_a_resumed_run_ends_at_the_same_bits(name, tmp_path):
    data = batches(6)

    def start():
        model = tiny_model(**WIDE)
        frozen = rows.freeze(model, mask_for(model, 5))
        return model, frozen.protect(optimizers.build(name, model, tmp_path))

    before = snapshot(start()[0])
    uninterrupted, model = whole_and_resumed(start, data)
    expected, found = snapshot(uninterrupted), snapshot(model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert moved(before, found, frozen_by_stage(model, 5))[0] == 0


def test_optimizer_state_of_another_stage_is_refused():
    model = tiny_model()
    rows.freeze(model, mask_for(model, 4))
    optimizer = adamw(model)
    train(model, optimizer, batches(1))
    state = optimizer.state_dict()
    frozen = rows.freeze(model, mask_for(model, 2))
    with pytest.raises(EEVEError, match="is another stage's"):
        frozen.protect(adamw(model)).load_state_dict(state)


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_clipping_sees_the_norm_of_what_trains_and_nothing_else(stage):
    plain = tiny_model()
    ids = batches(1)[0]
    loss_of(plain, ids).backward()
    expected = torch.stack(
        [
            part.norm()
            for name, span in frozen_by_stage(plain, stage).items()
            if span != slice(None)
            for part in [plain.get_parameter(name).grad[span.stop :]]
        ]
    ).norm()
    model = tiny_model()
    rows.freeze(model, mask_for(model, stage))
    loss_of(model, ids).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    torch.testing.assert_close(norm, expected)
    trained = [each.grad for each in model.parameters() if each.grad is not None]
    torch.testing.assert_close(torch.stack([each.norm() for each in trained]).norm(), torch.tensor(0.01))


def test_all_stages_follow_one_another_in_one_process():
    """The scheduler's way: one model, a mask and an optimiser a stage, each taken off before the next."""
    model = tiny_model()
    classes = [type(each) for each in model.modules()]
    for stage in EMBEDDING_STAGES:
        before = snapshot(model)
        frozen = rows.freeze(model, mask_for(model, stage))
        first = frozen.fingerprint()
        train(model, frozen.protect(adamw(model)), batches(2, seed=stage))
        first.check(frozen.fingerprint())
        frozen.remove()
        frozen_moved, trained_moved = moved(before, snapshot(model), frozen_by_stage(model, stage))
        assert frozen_moved == 0 and trained_moved > 0
        assert [type(each) for each in model.modules()] == classes
        assert not any(each.requires_grad for each in model.parameters())
        assert [name for name, _ in model.named_parameters() if "trained" in name] == []


def test_optimizer_state_is_allocated_for_trained_rows_only():
    model = tiny_model()
    rows.freeze(model, mask_for(model, 1))
    optimizer = adamw(model)
    train(model, optimizer, batches(1))
    two_moments = 2 * 4 * NEW * model.config.hidden_size
    assert rows.optimizer_state_bytes(optimizer) == two_moments + 4  # and a step counter
    saved = sum(
        value.numel() * value.element_size()
        for state in optimizer.state_dict()["state"].values()
        for value in state.values()
    )
    assert saved == two_moments + 4


def test_record_says_what_trained_and_proves_it():
    model = tiny_model()
    frozen = rows.freeze(model, mask_for(model, 5))
    optimizer = adamw(model)
    first = frozen.fingerprint()
    train(model, optimizer, batches(2))
    record = frozen.record(first, frozen.fingerprint(), optimizer)
    assert record["input_embeddings"] == {
        "rows_trained": NEW,
        "rows_frozen": BASE,
        "first_trained_row": BASE,
        "rows": VOCAB,
    }
    assert record["output_embeddings"]["rows_trained"] == VOCAB
    assert record["parameters_trained"] == (NEW + VOCAB) * model.config.hidden_size
    assert record["optimizer_state_bytes"] == rows.optimizer_state_bytes(optimizer)
    assert record["fingerprint_before"] == record["fingerprint_after"]
    assert set(record["fingerprint_before"]) == {"input_embeddings", "internal_layers"}
    assert record["moved"] == {}


def test_a_copied_model_trains_its_own_rows():
    model = tiny_model()
    rows.freeze(model, mask_for(model, 3))
    before = snapshot(model)
    other = copy.deepcopy(model)
    train(other, adamw(other), batches(2))
    assert moved(before, snapshot(model), frozen_by_stage(tiny_model(), 3)) == (0, 0)
    assert moved(before, snapshot(other), frozen_by_stage(tiny_model(), 3)) == (0, 2 * NEW)


def test_stage_seven_trains_adapters_only_and_six_the_embeddings_too():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head"])
    model = peft.get_peft_model(tiny_model(), config)
    for number in (6, 7):
        frozen = rows.freeze(model, rows.row_mask(model, STAGES[number], BASE))
        names = frozen.trained_parameters()
        adapters = {name for name in names if "lora_" in name}
        assert len(adapters) == 8
        others = {name.split(".")[-4] for name in set(names) - adapters}
        assert others == ({"embed_tokens", "lm_head"} if number == 6 else set())
        first = frozen.fingerprint()
        train(model, adamw(model), batches(2))
        first.check(frozen.fingerprint())


def test_a_stage_with_adapters_needs_a_model_with_adapters():
    model = tiny_model()
    with pytest.raises(EEVEError, match="adapter: qlora"):
        rows.freeze(model, rows.row_mask(model, STAGES[7], BASE))


def _unfreeze_a_layer(model):
    next(each for name, each in model.named_parameters() if ".mlp." in name).requires_grad_(True)


def _freeze_new_rows(model):
    next(each for name, each in model.named_parameters() if "trained_rows" in name).requires_grad_(False)


@pytest.mark.parametrize("later", [_unfreeze_a_layer, _freeze_new_rows])
def test_who_changes_what_trains_after_the_stage_is_caught(later):
    """As Spectrum does, or a callback, or a patch: what requires a gradient is no longer what the stage says."""
    model = tiny_model()
    frozen = rows.freeze(model, mask_for(model, 3))
    frozen.check_trained()
    later(model)
    with pytest.raises(EEVEError, match="what trains is not what stage 3 says: .*(mlp|trained_rows)"):
        frozen.check_trained()


def test_what_the_stage_freezes_is_fingerprinted_whoever_unfroze_it():
    """Unfrozen before the first fingerprint, and frozen again before the second."""
    model = tiny_model()
    frozen = rows.freeze(model, mask_for(model, 3))
    _unfreeze_a_layer(model)
    first = frozen.fingerprint()
    train(model, adamw(model), batches(2))
    for name, each in model.named_parameters():
        each.requires_grad_("trained_rows" in name)
    with pytest.raises(rows.FrozenMovedError, match=r"has changed: .*\.mlp\."):
        first.check(frozen.fingerprint())


def test_what_trained_and_did_not_move_is_named():
    model = tiny_model()
    frozen = rows.freeze(model, mask_for(model, 3))
    first = frozen.fingerprint()
    assert first.unmoved(frozen.fingerprint()) == [*first.trained] and len(first.trained) == 2
    train(model, adamw(model), batches(2))
    record = frozen.record(first, frozen.fingerprint())
    assert record["trained_and_unmoved"] == []


def test_trained_values_that_are_not_finite_are_told():
    model = tiny_model()
    frozen = rows.freeze(model, mask_for(model, 2))
    frozen.check_finite()
    (parameter,) = frozen.trained_parameters().values()
    parameter.data[0, 0] = float("nan")
    with pytest.raises(EEVEError, match="is not finite any more"):
        frozen.check_finite()
