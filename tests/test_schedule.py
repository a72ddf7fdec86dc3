"""When a stage ends, and which stages one run may have."""

import pytest
from pydantic import ValidationError

from eeve_axolotl.args import ConvergenceSettings, EEVESettings
from eeve_axolotl.batch import steps_for
from eeve_axolotl.schedule import converged

QUICK = {"window": 5, "min_improvement": 0.01, "patience": 2}


def test_a_loss_that_goes_on_falling_has_not_converged():
    assert not converged([5.0 * 0.99**step for step in range(200)], **QUICK)


def test_a_flat_loss_has_converged_after_the_patience():
    losses = [3.0] * 100
    # The first window sets the mark, two more do not beat it.
    assert not converged(losses[:14], **QUICK)
    assert converged(losses[:15], **QUICK)


def test_a_loss_that_flattens_converges_after_it_flattened():
    falling = [5.0 - 0.1 * step for step in range(30)]
    assert not converged(falling + falling[-1:] * 5, **QUICK)
    assert converged(falling + falling[-1:] * 15, **QUICK)


def test_noise_does_not_pass_for_improvement_nor_hide_it():
    noise = [0.3 if step % 2 else -0.3 for step in range(100)]
    assert converged([3.0 + each for each in noise[:20]], window=10, min_improvement=0.01, patience=1)
    falling = [5.0 - 0.02 * step + each for step, each in enumerate(noise)]
    assert not converged(falling, window=10, min_improvement=0.01, patience=1)


def test_one_window_without_improvement_is_forgiven_within_the_patience():
    losses = [3.0] * 5 + [3.0] * 5 + [2.0] * 5 + [2.0] * 5
    assert not converged(losses, **QUICK)


def test_fewer_losses_than_a_window_say_nothing():
    assert not converged([1.0] * 4, **QUICK) and not converged([], **QUICK)


@pytest.mark.parametrize("tokens, steps", [(1, 1), (1000, 1), (1001, 2), (10_000, 10)])
def test_a_token_budget_is_the_steps_that_use_it_up(tokens, steps):
    assert steps_for(tokens, tokens_per_step=1000) == steps


def test_an_entry_of_a_schedule_takes_from_the_block_what_it_leaves_out():
    settings = EEVESettings.model_validate(
        {"stages": [1, {"stage": 2, "max_tokens": 5}], "max_tokens": 9, "until_converged": {}}
    )
    one, two = settings.schedule()
    assert (one.stage, one.max_tokens, two.stage, two.max_tokens) == (1, 9, 2, 5)
    assert one.until_converged == two.until_converged == ConvergenceSettings()


@pytest.mark.parametrize("block, message", [
    ({"stages": [1, 2], "stage": 3}, "not both"),
    ({"stages": [5, 6]}, "stage 6 trains adapters"),
    ({"stages": [1, 2, 1]}, "stands twice"),
    ({"stages": [1, 8]}, "stage 8 does not exist"),
    ({"stages": ["one"]}, "stages"),
    ({"stages": []}, "at least 1"),
    ({"stages": [{"stage": 1, "gradient_accumulation_steps": 2}], "global_batch_size": 8}, "remove one of the two"),
    ({"stages": [{"stage": 1, "learning_rat": 1}]}, "Extra inputs"),
    ({"stages": [1, {"stage": 2, "sequence_len": 64}]}, "give a stage of another length a run of its own"),
    ({"stages": [1, {"stage": 2, "learning_rate": 1}], "keep_schedule": True}, "stage 2 has a learning_rate"),
    ({"stages": [{"stage": 1, "warmup_steps": 0}, 2], "keep_schedule": True}, "stage 1 has a learning_rate"),
    ({"stages": [{"stage": 1, "input_learning_rate": 1}, 2], "keep_schedule": True}, "stage 1 has a learning_rate"),
    ({"stage": 2, "input_learning_rate": 1}, "`input_learning_rate` is for the input embeddings, and stage 2 trains none"),
    ({"stages": [1, {"stage": 4, "input_learning_rate": 1}]}, "`input_learning_rate` is .* stage 4 trains none of their"),
    ({"stages": [{"stage": 1, "output_learning_rate": 1}, 2]}, "`output_learning_rate` is .* stage 1 trains none"),
    ({"stages": [2, 4], "input_learning_rate": 1}, "no stage of `stages` trains a row of them"),
    ({"stage": 7, "output_learning_rate": 1}, "stage 7 trains none of their rows; remove it"),
    ({"stage": 3, "output_learning_rate": 0}, "greater than 0"),
])  # fmt: skip
def test_a_schedule_that_makes_no_sense_is_refused(block, message):
    with pytest.raises(ValidationError, match=message):
        EEVESettings.model_validate(block)


def test_a_rate_of_one_matrix_is_for_the_stages_that_train_it():
    settings = EEVESettings.model_validate(
        {"stages": [1, 2, {"stage": 3, "output_learning_rate": 3e-5}], "input_learning_rate": 3e-3}
    )
    assert [each.own_rates for each in settings.schedule()] == [
        {"input_embeddings": 3e-3},
        {},
        {"input_embeddings": 3e-3, "output_embeddings": 3e-5},
    ]
    assert settings.rate_keys == ["input_learning_rate", "output_learning_rate"]
    assert EEVESettings.model_validate({"stages": [1, 2]}).rate_keys == []
    (alone,) = EEVESettings.model_validate({"stage": 6, "output_learning_rate": "3e-4"}).schedule()
    assert alone.own_rates == {"output_embeddings": 3e-4}


@pytest.mark.parametrize("keys, refused", [
    ({}, False),
    ({"input_learning_rate": 3e-3}, True),
    ({"output_learning_rate": 3e-3}, True),
    ({"input_learning_rate": 3e-3, "output_learning_rate": 3e-3}, False),
    ({"input_learning_rate": 1e-4}, False),  # the others' rate
    ({"input_learning_rate": 1e-4, "learning_rate": 1e-3}, True),
])  # fmt: skip
def test_one_matrix_takes_one_rate(keys, refused):
    (three,) = EEVESettings.model_validate({"stages": [{"stage": 3, **keys}]}).schedule()
    said = three.refuses_one_matrix(1e-4)
    assert ("ties them into one matrix" in said) if refused else said is None


def test_where_a_stage_trains_the_one_matrix_as_output_embeddings_alone_their_rate_is_its_rate():
    (four,) = EEVESettings.model_validate({"stage": 4, "output_learning_rate": 3e-3}).schedule()
    assert four.refuses_one_matrix(1e-4) is None
