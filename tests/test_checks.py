"""What a user can get wrong in a YAML: one sentence each, before anything is loaded."""

import pytest
import yaml

from eeve_axolotl import checks
from eeve_axolotl.args import read_block
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.stages import STAGES


def config(**keys):
    return {"base_model": "org/model", "eeve": {"stage": 3}, **keys}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unfrozen_parameters": ["lm_head"]}, "`unfrozen_parameters` cannot be used together with `eeve:`"),
        ({"peft_trainable_token_indices": [1]}, "`peft_trainable_token_indices` cannot be used"),
        ({"peft": {"trainable_token_indices": [1]}}, "`peft.trainable_token_indices` cannot be used"),
        ({"fix_untrained_tokens": True}, "`fix_untrained_tokens` cannot be used"),
        ({"shrink_embeddings": True}, "`shrink_embeddings` cannot be used"),
        ({"relora": True}, "`relora` cannot be used"),
        ({"lisa_n_layers": 2}, "`lisa_n_layers` cannot be used"),
        ({"rl": "dpo"}, "`rl` cannot be used.*train the stages first"),
        ({"reward_model": True}, "`reward_model` cannot be used"),
        ({"process_reward_model": True}, "`process_reward_model` cannot be used"),
        ({"lora_modules_to_save": ["lm_head"]}, "`lora_modules_to_save` has no meaning without an adapter"),
        ({"trainer_cls": "my.Trainer"}, "would replace the trainer that keeps rows frozen"),
        ({"adapter": "lora"}, "stage 3 keeps the internal layers frozen.*remove `adapter`"),
        ({"load_in_4bit": True}, "stage 3 trains without an adapter.*remove load_in_4bit"),
    ],
)
def test_a_key_that_contradicts_the_stage_is_named(keys, message):
    with pytest.raises(EEVEError, match=message):
        checks.check_config(config(**keys), STAGES[3])


@pytest.mark.parametrize("optimizer", ["lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise"])
def test_an_optimizer_that_steps_inside_the_backward_pass_is_refused(optimizer):
    with pytest.raises(EEVEError, match=f"`optimizer: {optimizer}` steps inside.*set adamw_torch_fused"):
        checks.check_config(config(optimizer=optimizer), STAGES[3])


def test_a_qlora_stage_without_an_adapter_says_what_to_add():
    with pytest.raises(EEVEError, match="add `adapter: qlora` and `load_in_4bit: true`"):
        checks.check_config(config(), STAGES[7])


def test_a_merge_that_rounds_embeddings_to_4_bits_is_refused():
    cfg = config(adapter="qlora", load_in_4bit=True, merge_method="memory_efficient")
    with pytest.raises(EEVEError, match="`merge_method: memory_efficient` would round the embeddings"):
        checks.check_config(cfg, STAGES[7])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (None, "has no `eeve:` block"),
        (3, "is not a block of keys"),
        ({"stag": 3}, "stag: there is no such key"),
        ({"init": {"outptu": "mean"}, "stage": 1}, "init.outptu: there is no such key"),
        ({"stage": 8}, "stage 8 does not exist; the stages are 1 to 7"),
        ({"stage": 1, "internal_layers": "full"}, "either `stage` or the three words"),
        ({"input_embeddings": "new"}, "all three of input_embeddings"),
        (
            {"input_embeddings": "none", "output_embeddings": "none", "internal_layers": "frozen"},
            "nothing trains",
        ),
        (
            {"input_embeddings": "some", "output_embeddings": "none", "internal_layers": "frozen"},
            "input_embeddings: Input should be 'none', 'new' or 'all'",
        ),
        ({"stage": 1, "base_vocab_size": 0}, "base_vocab_size"),
    ],
)
def test_a_wrong_eeve_block_is_told_in_one_sentence(block, message):
    with pytest.raises(EEVEError, match=message) as error:
        read_block(config(eeve=block))
    assert "\n" not in str(error.value)


def test_a_missing_base_model_names_the_recipe_that_makes_it(tmp_path):
    outputs = tmp_path / "outputs"
    for number, base in ((1, "org/model"), (2, outputs / "stage1"), (7, outputs / "stage6" / "merged")):
        recipe = {"base_model": str(base), "output_dir": str(outputs / f"stage{number}")}
        (tmp_path / f"stage{number}.yml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "stage6.yml").write_text(yaml.safe_dump({"output_dir": str(outputs / "stage6")}))

    def missing(number, base):
        cfg = {"base_model": str(base), "axolotl_config_path": str(tmp_path / f"stage{number}.yml")}
        with pytest.raises(EEVEError) as error:
            checks.check_inputs(cfg)
        return str(error.value)

    (tmp_path / "disk").symlink_to(outputs)
    for place in (outputs, tmp_path / "disk"):
        assert f"run `axolotl train {tmp_path / 'stage1.yml'}` first" in missing(2, place / "stage1")
    assert f"`axolotl merge-lora {tmp_path / 'stage6.yml'}` first" in missing(
        7, outputs / "stage6" / "merged"
    )
    assert "run the stage that makes it first" in missing(2, tmp_path / "elsewhere")


def test_a_missing_output_is_known_by_its_recipe_even_where_it_reads_like_a_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (2, 3):
        recipe = {"base_model": f"outputs/stage{number - 1}", "output_dir": f"outputs/stage{number}"}
        (tmp_path / f"stage{number}.yml").write_text(yaml.safe_dump(recipe))
    cfg = {"base_model": "outputs/stage2", "axolotl_config_path": "stage3.yml"}
    with pytest.raises(EEVEError, match="run `axolotl train stage2.yml` first"):
        checks.check_inputs(cfg)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(EEVEError, match="tokenizer_config .*tokenizer does not exist"):
        checks.check_inputs({"tokenizer_config": str(tmp_path / "tokenizer")})


def test_a_hub_name_is_left_to_axolotl():
    checks.check_inputs({"base_model": "upstage/SOLAR-10.7B-v1.0", "datasets": [{"path": "org/corpus"}]})


@pytest.mark.parametrize("key", ["datasets", "pretraining_dataset"])
def test_a_missing_or_empty_corpus_is_named(tmp_path, key):
    missing, empty, full = (tmp_path / name for name in ("missing.jsonl", "empty.jsonl", "full.jsonl"))
    empty.touch()
    full.write_text('{"text": "안녕"}\n')
    for entry in ({"path": str(missing)}, {"path": "json", "data_files": [str(missing)]}):
        with pytest.raises(EEVEError, match="missing.jsonl .*does not exist"):
            checks.check_inputs({key: [entry]})
    with pytest.raises(EEVEError, match="empty.jsonl .*is empty"):
        checks.check_inputs({key: [{"path": str(empty)}]})
    checks.check_inputs(
        {key: [{"path": str(full)}, {"path": "json", "data_files": str(tmp_path / "f*.jsonl")}]}
    )


def test_an_empty_corpus_directory_is_named(tmp_path):
    with pytest.raises(EEVEError, match="is empty"):
        checks.check_inputs({"datasets": [{"path": str(tmp_path)}]})


@pytest.mark.parametrize("output", ["base", "./base/", "base/../base"])
def test_an_output_that_is_the_base_model_is_refused(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    with pytest.raises(EEVEError, match="is the base model itself"):
        checks.check_inputs(config(base_model="base", output_dir=output))
