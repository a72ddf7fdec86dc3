"""`axolotl eeve plan` on recipes: the paper's, and those that cannot be run."""

import dataclasses
import json
import re

import pytest
import yaml
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline.settings import StartSettings
from eeve_axolotl.planner import gpus
from eeve_axolotl.planner.estimate import Options, check_fits, estimate
from eeve_axolotl.planner.shapes import read_config, shape_of
from eeve_axolotl.planner.start import start_flops
from eeve_axolotl.planner.table import assumptions, planned
from eeve_axolotl.records import CORPUS_MANIFEST
from tests.conftest import ROOT, tiny_llama

SOLAR = ROOT / "examples"
H100S = Options(gpu=gpus.find("h100-80gb"), gpus=8)


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe of a tiny base with a built tokenizer, with the given keys changed."""
    (tmp_path / "base").mkdir()
    tiny_llama(500).config.save_pretrained(tmp_path / "base")
    (tmp_path / "tokenizer").mkdir()
    manifest = {"base_vocab_size": 500, "vocab_size": 600}
    (tmp_path / "tokenizer" / "eeve_tokenizer.json").write_text(json.dumps(manifest))

    def write(**changes):
        cfg = {
            "base_model": str(tmp_path / "base"),
            "tokenizer_config": str(tmp_path / "tokenizer"),
            "plugins": ["eeve_axolotl.EEVEPlugin"],
            "eeve": {"stage": 5},
            "micro_batch_size": 4,
            "sequence_len": 512,
            "max_steps": 10,
            "bf16": True,
            **changes,
        }
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump(cfg))
        return tmp_path / "recipe.yml"

    return write


def test_the_papers_stage_five(monkeypatch):
    """8,960 new input rows and 40,960 output rows of 4,096; 400 steps of 1,048,576 tokens."""
    (five,) = estimate(SOLAR / "stage5.yml", H100S)
    assert five.trained.total == (8_960 + 40_960) * 4096
    assert five.tokens == 400 * 1_048_576
    assert five.memory.weights == 2 * (10_731_524_096 + 2 * 8_960 * 4096)
    assert five.fits


def test_a_stage_without_a_backward_pass_through_the_layers_costs_about_half():
    (two,), (one,) = (estimate(SOLAR / f"stage{number}.yml", H100S) for number in (2, 1))
    assert one.flops / two.flops == pytest.approx(2.07, rel=0.02)  # forward and backward, to no frozen weight


def test_hours_and_cost_follow_from_flops():
    options = Options(gpu=gpus.find("h100-80gb"), gpus=4, price_per_hour=2.0, utilisation=0.5)
    (two,) = estimate(SOLAR / "stage2.yml", options)
    assert two.hours == pytest.approx(two.flops / (4 * 989.4e12 * 0.5 * 3600))
    assert two.cost == pytest.approx(two.hours * 4 * 2.0)


def test_the_papers_global_batch_on_any_number_of_gpus():
    for count, accumulation in ((1, 8), (2, 4), (4, 2), (8, 1)):
        options = Options(gpu=gpus.find("h100-80gb"), gpus=count, global_batch=256)
        (each,) = estimate(SOLAR / "stage4.yml", options)
        assert each.training.step.accumulation == accumulation
        assert each.tokens == 400 * 1_048_576


def test_a_recipes_own_global_batch_is_planned_as_it_will_be_trained(recipe):
    path = recipe(eeve={"stage": 5, "global_batch_size": 64}, gradient_accumulation_steps=None)
    for count, accumulation in ((1, 16), (2, 8), (8, 2)):
        (each,) = estimate(path, Options(gpu=gpus.find("h100-80gb"), gpus=count))
        assert (each.training.step.accumulation, each.tokens) == (accumulation, 10 * 64 * 512)
    with pytest.raises(EEVEError, match=r"64 does not divide into 3 GPUs x micro_batch_size 4"):
        estimate(path, Options(gpu=gpus.find("h100-80gb"), gpus=3))


def test_without_a_sequence_length_axolotls_own_is_planned(recipe):
    """Axolotl's schema, which is what a run without `sequence_len` trains with, says 512."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    axolotls = AxolotlInputConfig.model_fields["sequence_len"].default
    (left_out,), (said,) = (estimate(recipe(sequence_len=each), H100S) for each in (None, axolotls))
    assert left_out.training.step.sequence_len == axolotls == 512
    assert (left_out.tokens, left_out.flops) == (10 * 8 * 4 * 512, said.flops)
    assert left_out.memory == said.memory


def test_a_schedule_is_planned_stage_by_stage(recipe):
    path = recipe(eeve={"stages": [1, {"stage": 2, "max_steps": 3}], "max_tokens": 8 * 512 * 8})
    first, second = estimate(path, H100S)
    assert (first.stage.name, first.steps) == ("1", 2)  # 8 GPUs x 4 x 512 tokens a step
    assert (second.stage.name, second.steps) == ("2", 2)
    assert first.trained.total == second.trained.total == 100 * 32


def test_a_pipeline_is_planned_run_by_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = estimate("examples/pipeline.yml", H100S)
    assert [each.stage.name for each in stages] == ["1", "2", "3", "4", "5", "6", "7"]
    assert {each.tokens for each in stages} == {400 * 1_048_576}


def test_a_pipelines_start_is_told_with_what_it_costs(monkeypatch):
    monkeypatch.chdir(ROOT)
    options = dataclasses.replace(H100S, new_tokens=8_960)
    (six,), lines = planned(["examples/short/pipeline.yml"], options)
    assert six.stage.name == "6"
    (told,) = [line for line in lines if line.startswith("Before the stages `start`")]
    assert "8,960 output rows to 100,000 tokens" in told
    solar = shape_of(read_config("upstage/SOLAR-10.7B-v1.0"))
    settings = StartSettings(base="./base", output="./started")
    flops = start_flops(solar, settings, 32_000, 8_960)
    assert f"{flops / 1e15:,.2f} PFLOPs" in told
    # Of the forward pass 1.75 a token, and the fit is the smaller part of the rest.
    assert 1.75 < flops / (2 * solar.linear_parameters * settings.tokens) < 2.5
    twice = start_flops(solar, settings.model_copy(update={"tokens": 200_000}), 32_000, 8_960)
    assert twice == pytest.approx(2 * flops)
    assert not any("`start`" in line for line in planned(["examples/pipeline.yml"], options)[1])


def test_tied_embeddings_count_once_until_they_are_untied(recipe, tmp_path):
    tiny_llama(500, tie_word_embeddings=True).config.save_pretrained(tmp_path / "base")
    with pytest.raises(EEVEError, match=r"ties them into one matrix; set `eeve.untie: true`"):
        estimate(recipe(), H100S)
    (four,) = estimate(recipe(eeve={"stage": 4}), H100S)
    assert four.trained.total == 600 * 32
    assert four.stage.backward_through_layers
    (five,) = estimate(recipe(eeve={"stage": 5, "untie": True}), H100S)
    assert five.trained.total == (100 + 600) * 32


def test_the_heads_loss_is_planned_as_it_will_be_made(recipe):
    def logits(**changes):
        (each,) = estimate(recipe(**{"eeve": {"stage": 4}, "micro_batch_size": 512, **changes}), H100S)
        return each.memory.logits

    whole = 512 * 512 * 600 * 12
    assert logits(eeve={"stage": 4, "head_loss": "plain"}) == logits(chunked_cross_entropy=True) == whole
    assert (
        logits(cut_cross_entropy=True)
        == logits(plugins=["axolotl.integrations.x.CutCrossEntropyPlugin"])
        == 0
    )
    assert 0 < logits() < whole / 2


def test_frozen_layers_in_fp8_are_planned_as_half_of_their_weights_and_not_as_faster():
    """SOLAR's linear weights, 2 bytes each, are a byte and a scale a row; its embeddings and norms are as before."""
    (plain,) = estimate(SOLAR / "stage1.yml", H100S)
    in_fp8 = Options(gpu=H100S.gpu, gpus=8, changes=("eeve.frozen_precision=fp8",))
    (held,) = estimate(SOLAR / "stage1.yml", in_fp8)
    layer = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096
    scales = 48 * 4 * (2 * 4096 + 2 * 1024 + 2 * 14336 + 4096)
    assert plain.memory.weights - held.memory.weights == 48 * layer - scales
    assert plain.memory.total - held.memory.total == 48 * layer - scales
    assert (held.hours, held.flops) == (plain.hours, plain.flops)
    assert "no gain in speed is counted" in assumptions([plain, held], H100S)
    assert "FP8" not in assumptions([plain], H100S)


def test_layers_that_are_read_in_fp8_are_first_loaded_whole(recipe):
    (plain,) = estimate(recipe(eeve={"stage": 2}, micro_batch_size=1, sequence_len=16), H100S)
    (held,) = estimate(
        recipe(eeve={"stage": 2, "frozen_precision": "fp8"}, micro_batch_size=1, sequence_len=16), H100S
    )
    assert held.memory.total >= plain.memory.weights > held.memory.weights
    too_large = dataclasses.replace(held, largest_micro_batch=0)
    assert too_large.advice.startswith("take a larger GPU, or remove eeve.frozen_precision")


def test_a_chain_that_began_by_untying_stays_untied():
    (two,) = estimate(SOLAR / "qwen2.5-1.5b" / "stage2.yml", H100S)
    assert not two.stage.backward_through_layers and not two.training.tied
    assert two.memory.weights == 2 * (1_543_714_304 + 1536 * (151_936 + 2 * 8_960))


def test_what_cannot_be_planned_says_what_to_change(recipe):
    with pytest.raises(EEVEError, match=r"the GPU rtx-2 is not known; give one of .*a100-40gb"):
        gpus.find("rtx-2")
    with pytest.raises(EEVEError, match=r"yml: a global batch of 250 does not divide into 8 GPUs"):
        estimate(recipe(), Options(gpu=gpus.find("h100-80gb"), gpus=8, global_batch=250))
    with pytest.raises(EEVEError, match=r"does not say when stage 5 ends; set max_steps"):
        estimate(recipe(max_steps=None), H100S)
    with pytest.raises(EEVEError, match=r"not built yet; say how many tokens it will add with --new-tokens"):
        estimate(recipe(tokenizer_config="./nowhere"), H100S)
    with pytest.raises(EEVEError, match=r"the shape of some/model is not known here"):
        estimate(recipe(base_model="some/model"), H100S)
    with pytest.raises(EEVEError, match=r"without saying their rank; set lora_r"):
        estimate(recipe(eeve={"stage": 7}), H100S)


def test_what_does_not_fit_names_the_key_that_helps(recipe):
    large = Options(gpu=gpus.find("a100-40gb"), gpus=1)
    with pytest.raises(
        EEVEError, match=r"stage 4 .* needs .* GB of the 38.0 GB .*; set micro_batch_size: 16"
    ):
        check_fits(estimate(SOLAR / "stage4.yml", large), large)
    with pytest.raises(EEVEError, match=r"set gradient_checkpointing: true"):
        check_fits(estimate(recipe(sequence_len=30_000_000, micro_batch_size=1), large), large)


def test_the_command_prints_a_column_a_stage_and_fails_where_one_does_not_fit():
    paths = [str(SOLAR / f"stage{number}.yml") for number in (1, 2)]
    result = CliRunner().invoke(eeve, ["plan", *paths, "--gpu", "H100-80GB", "--price-per-hour", "3"])
    assert result.exit_code == 0, result.output
    lines = dict(line.split("  ", 1) for line in result.output.splitlines() if "  " in line)
    assert lines["stage"].split() == ["1", "2", "all"]
    assert lines["parameters trained"].split() == ["36,700,160"] * 2
    assert "Assumed: 1 x h100-80gb" in result.output
    result = CliRunner().invoke(eeve, ["plan", *paths, "--gpu", "a100-40gb"])
    assert result.exit_code == 1
    assert "set gradient_checkpointing: true" in result.output


def test_the_plan_says_which_part_of_the_text_each_stage_reads(recipe, tmp_path):
    stages = {"stages": [1, {"stage": 2, "max_steps": 5}, 5], "global_batch_size": 1280}
    path = str(recipe(eeve=stages, datasets=[{"path": str(tmp_path / "corpus"), "type": "completion"}]))

    def rows() -> dict[str, list[str]]:
        result = CliRunner().invoke(eeve, ["plan", path, "--gpu", "H100-80GB"])
        assert result.exit_code == 0, result.output
        return {
            name: cells
            for name, *cells in (re.split(r" {2,}", line.strip()) for line in result.output.splitlines())
        }

    a_step = 40 * 512 * 32 / 1e6
    ends = [10 * a_step, 15 * a_step, 25 * a_step]
    spans = [f"{start:.1f} to {end:.1f}" for start, end in zip([0, *ends], ends, strict=False)]
    assert rows()["of the text, M"] == [*spans, f"{ends[-1]:.1f}"]
    assert "epochs by its end" not in rows()

    (tmp_path / "corpus").mkdir()
    groups = {"korean": {"tokens": 6_000_000}, "english": {"tokens": 7_107_200}}
    manifest = {"groups": groups, "tokenizer": {}, "longest_record": 512}
    (tmp_path / "corpus" / CORPUS_MANIFEST).write_text(json.dumps(manifest))
    assert rows()["epochs by its end"] == ["0.50", "0.75", "1.25", "1.25"]

    recipe(eeve={**stages, "text": "again"})
    again = [f"0.0 to {steps * a_step:.1f}" for steps in (10, 5, 10)]
    assert rows()["of the text, M"] == [*again, f"{10 * a_step:.1f}"]
