"""`axolotl eeve check`: what a recipe would do, and everything that would stop it, without loading a model."""

import re
from importlib.metadata import version

import pytest
import yaml
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.settings import duplicate_keys
from tests.conftest import extended, tiny_llama
from tests.tokenizer.test_byte_level import KINDS


@pytest.fixture
def recipe(tmp_path, base_tokenizer, monkeypatch):
    """Writes a recipe whose inputs are all there, with the given keys changed."""
    monkeypatch.chdir(tmp_path)
    base_tokenizer.save_pretrained("base")
    tiny_llama(len(base_tokenizer)).config.save_pretrained("base")
    extended(base_tokenizer, ["안녕", "하세요"]).save_pretrained("tokenizer")
    (tmp_path / "corpus.jsonl").write_text('{"text": "안녕"}\n')

    def write(**changes):
        cfg = {
            "base_model": "./base",
            "tokenizer_config": "./tokenizer",
            "plugins": ["eeve_axolotl.EEVEPlugin"],
            "trainer_cls": "eeve_axolotl.trainer.EEVETrainer",
            "eeve": {"stage": 5},
            "datasets": [{"path": "./corpus.jsonl", "ds_type": "json", "type": "completion"}],
            "sequence_len": 64,
            "micro_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3,
            "max_steps": 2,
            "output_dir": "./out",
            **changes,
        }
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump({k: v for k, v in cfg.items() if v is not None}))
        return "recipe.yml"

    return write


def check(path: str):
    result = CliRunner().invoke(eeve, ["check", path])
    return result.exit_code, result.output


def test_a_sound_recipe_says_what_trains_where_it_starts_and_where_it_writes(recipe):
    code, said = check(recipe())
    assert code == 0, said
    for line in (
        f"checked with Axolotl {version('axolotl')}\n",
        "starts from ./base\n",
        "input embeddings: the new rows train",
        "output embeddings: all rows train",
        "internal layers: frozen",
        "writes to ./out",
        "nothing would stop it",
    ):
        assert line in said


def test_rates_of_one_matrix_are_told(recipe):
    block = {"stages": [2, {"stage": 5, "output_learning_rate": 1e-4}], "input_learning_rate": "3e-3"}
    code, said = check(recipe(eeve=block))
    assert code == 0, said
    assert "output embeddings: the new rows train\n" in said  # stage 2 has no rate of its own
    assert "input embeddings: the new rows train, learning rate 0.003 at its peak" in said
    assert "output embeddings: all rows train, learning rate 0.0001 at its peak" in said


def test_everything_missing_is_told_at_once(recipe):
    code, said = check(
        recipe(base_model="./outputs/stage4", plugins=None, unfrozen_parameters=["x"], adapter="lora")
    )
    assert code == 1
    assert "starts from ./outputs/stage4 (not a directory here)" in said
    for problem in (
        "the plugin is not listed",
        "`unfrozen_parameters` cannot be used",
        "base_model ./outputs/stage4 does not exist",
    ):
        assert problem in said


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tokenizer_config": "./base"}, "there are no new rows to train"),
        ({"eeve": {"stage": 9}}, "stage 9 does not exist"),
        ({"eeve": None}, "has no `eeve:` block"),
        ({"fsdp_version": 1, "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}, "FSDP1 flattens"),
        ({"datasets": [{"path": "./nowhere.jsonl", "type": "completion"}]}, "nowhere.jsonl"),
        (
            {"eeve": {"stage": 5, "global_batch_size": 8}, "micro_batch_size": 3},
            "8 does not divide into 1 GPUs",
        ),
        ({"learning_rate": "fast"}, "learning_rate"),  # Axolotl's own validation
    ],
)
def test_one_thing_wrong_is_named(recipe, changes, problem):
    code, said = check(recipe(**changes))
    assert code == 1
    assert problem in said


def test_a_recipe_without_the_guard_is_noted_and_may_run(recipe):
    code, said = check(recipe(trainer_cls=None))
    assert code == 0, said
    assert "Note: without `trainer_cls" in said


def test_a_loss_that_would_leave_out_the_heads_bias_is_told_before_a_model_is_loaded(recipe, tmp_path):
    from transformers import PhiConfig

    path = recipe(liger_fused_linear_cross_entropy=True)
    PhiConfig(vocab_size=32000, hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(
        "base"
    )
    code, said = check(path)
    assert code == 1
    assert "would leave out the bias of PhiForCausalLM's head" in said
    code, said = check(recipe(eeve={"stage": 2}, liger_fused_linear_cross_entropy=True))
    assert code == 1
    assert "gives the output embeddings no gradient in stage 2" in said


TOKENIZER = {"base": "./base", "output": "./new", "corpus": [{"path": "./corpus.jsonl"}]}
GROUP = {"share": 1.0, "sources": [{"path": "./corpus.jsonl"}]}
CORPUS = {"tokenizer": "./tokenizer", "output": "./text", "mix": {"a": GROUP}, "budget": {"share": 1.0}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (TOKENIZER, None),
        ({**TOKENIZER, "new_token": 3}, r"did you mean `new_tokens`\?"),
        (CORPUS, None),
        ({**CORPUS, "budget": {"shares": 1.0}}, r"did you mean `share`\?"),
        (
            {**CORPUS, "mix": {"a": {**GROUP, "filters": {"repetitions": True}}}},
            r"did you mean `repetition`\?",
        ),
        ({"output": "./all", "runs": ["recipe.yml"]}, None),
        ({"output": "./all", "runs": ["recipe.yml"], "tokenizer": "nowhere.yml"}, "nowhere.yml"),
        ({"output": "./all", "run": ["recipe.yml"], "launcher": "python"}, r"did you mean `runs`\?"),
    ],
)
def test_other_yamls_of_ours_are_checked_by_their_own_validators(recipe, tmp_path, content, problem):
    recipe()
    (tmp_path / "other.yml").write_text(yaml.safe_dump(content))
    code, said = check("other.yml")
    assert (code == 1) == bool(problem), said
    assert re.search(problem or "nothing would stop it", said), said


def test_a_pipelines_runs_are_checked_as_if_those_before_were_done(recipe, tmp_path):
    recipe(eeve={"stage": 1}, learning_ratee=1)
    (tmp_path / "one.yml").write_text((tmp_path / "recipe.yml").read_text())
    recipe(eeve={"stage": 2}, base_model="./out", output_dir="./out2", rl="dpo", adapter="lora")
    (tmp_path / "two.yml").write_text((tmp_path / "recipe.yml").read_text())
    (tmp_path / "all.yml").write_text(yaml.safe_dump({"output": "./all", "runs": ["one.yml", "two.yml"]}))
    code, said = check("all.yml")
    assert code == 1
    for problem in (
        "one.yml: `learning_ratee`",
        "two.yml: `rl` cannot be used",
        "two.yml: stage 2 keeps the internal",
    ):
        assert problem in said
    assert "./out does not exist" not in said


def test_what_is_unknown_of_a_pipelines_run_is_told_with_its_name(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe(base_model="someone/elses-model")
    (tmp_path / "one.yml").write_text((tmp_path / "recipe.yml").read_text())
    (tmp_path / "all.yml").write_text(yaml.safe_dump({"output": "./all", "runs": ["one.yml"]}))
    code, said = check("all.yml")
    assert code == 0, said
    assert "Unknown: one.yml: whether the embeddings are tied" in said
    assert said.endswith("nothing would stop it, as far as is known here\n")


def test_every_way_of_sharding_that_is_wrong_is_told_at_once(recipe):
    zero = {"zero_optimization": {"stage": 3, "mics_shard_size": 2, "zero_quantized_weights": True}}
    code, said = check(recipe(deepspeed=zero, tensor_parallel_size=2))
    assert code == 1
    for wrong in ("`tensor_parallel_size: 2`", "`mics_shard_size`", "`zero_quantized_weights`", "in pieces"):
        assert wrong in said


def test_duplicate_keys_are_found_in_mappings_lists_and_past_aliases(tmp_path):
    text = "a: &x {b: 1, b: 2}\nc:\n  - {d: 1}\n  - d: 1\n    d: 2\ne: *x\nf:\n  <<: *x\n  <<: *x\n"
    (tmp_path / "a.yml").write_text(text)
    assert duplicate_keys(tmp_path / "a.yml") == [("a.b", [1, 1]), ("c.1.d", [4, 5])]
    assert duplicate_keys(tmp_path / "none.yml") == []


@pytest.mark.parametrize("changes", [{}, {"adapter": "lora", "lora_r": 4, "lora_target_linear": True}])
def test_a_config_without_anything_of_ours_is_called_plain_axolotl(recipe, changes):
    code, said = check(recipe(eeve=None, plugins=None, trainer_cls=None, **changes))
    assert code == 0, said
    assert "no stage: without `eeve:` and our plugin it is plain Axolotl, which trains what it says" in said
    assert "starts from ./base\n" in said and "writes to ./out\n" in said
    assert "a machine that lacks this package" not in said
    assert ("axolotl merge-lora" in said) == bool(changes)


def test_of_plain_axolotl_everything_wrong_is_told_too(recipe):
    code, said = check(
        recipe(eeve=None, plugins=["no.Such"], trainer_cls=None, base_model="./gone", learning_rate="fast")
    )
    assert code == 1
    for problem in ("no.Such cannot be imported", "base_model ./gone does not exist", "learning_rate"):
        assert problem in said


@pytest.mark.parametrize("left", ["plugins", "trainer_cls"])
def test_one_line_of_ours_without_the_block_is_no_plain_axolotl(recipe, left):
    others = {"plugins", "trainer_cls"} - {left}
    code, said = check(recipe(eeve=None, **dict.fromkeys(others)))
    assert code == 1 and "has no `eeve:` block" in said


@pytest.mark.parametrize("keys, told", [
    ({}, None),
    ({"base": "./nowhere"}, "no tokenizer at ./nowhere"),
    ({"base": "./byte_level", "superwords": 10}, "no new token of ./byte_level can reach over a space"),
    ({"base": "mistral_common:nothing.model"}, "nothing.model"),
    ({"allow": ["Hello"]}, "Hello"),
    ({"base": "someone/on-the-hub", "superwords": 10}, None),
])  # fmt: skip
def test_a_tokenizers_yaml_is_held_against_its_base_where_that_is_at_hand(
    tmp_path, monkeypatch, base_tokenizer, keys, told
):
    monkeypatch.chdir(tmp_path)
    base_tokenizer.save_pretrained("base")
    KINDS["llama3"]().save_pretrained("byte_level")
    cfg = {"base": "./base", "output": "./out", "corpus": [{"path": "./text"}], "script": ["Hangul"], **keys}
    (tmp_path / "tokenizer.yml").write_text(yaml.safe_dump(cfg))
    code, said = check("tokenizer.yml")
    assert (code == 0) is (told is None), said
    assert told is None or told in said
