"""Every recipe: valid for Axolotl with the plugin, and different from its siblings only where the stage is."""

import json
from pathlib import Path

import pytest
import yaml

from eeve_axolotl.planner.configs import CONFIGS
from eeve_axolotl.stages import STAGES, Layers
from tests.conftest import ROOT, corpus

# Of the base model: its name, sequence length, micro batch, accumulation, learning rate.
MODELS = {
    ".": ("upstage/SOLAR-10.7B-v1.0", 4096, 8, 4, 4e-5),  # paper 3.2
    "phi-2": ("microsoft/phi-2", 2048, 16, 16, 2e-4),  # paper 3.2
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B", 4096, 2, 16, 4e-5),
    "qwen2.5-1.5b": ("Qwen/Qwen2.5-1.5B", 4096, 4, 8, 2e-4),
    "gemma-2-2b": ("google/gemma-2-2b", 4096, 1, 32, 2e-4),
}
TIED = ("qwen2.5-1.5b", "gemma-2-2b")
OTHERS = [model for model in MODELS if model != "."]


def recipes_of(model: str) -> dict[int, Path]:
    return {number: ROOT / "examples" / model / f"stage{number}.yml" for number in STAGES}


RECIPES = recipes_of(".")


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# What a stage may say for itself; everything else must be the same in all seven.
OF_THE_STAGE = {"base_model", "output_dir", "eeve"}
OF_QLORA = {"adapter", "load_in_4bit", "lora_r", "lora_alpha", "lora_dropout", "lora_target_linear"}
OF_THE_BACKWARD_PASS = {"gradient_checkpointing", "gradient_checkpointing_kwargs"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number", STAGES)
def test_a_recipe_differs_from_its_siblings_only_where_the_stage_does(number, model):
    mine, siblings = read(recipes_of(model)[number]), [read(path) for path in recipes_of(model).values()]
    for key in {key for recipe in siblings for key in recipe} - OF_THE_STAGE:
        if key in OF_QLORA:
            alike = [other for other, n in zip(siblings, STAGES, strict=True) if same_layers(n, number)]
        elif key in OF_THE_BACKWARD_PASS:
            alike = [other for other, n in zip(siblings, STAGES, strict=True) if same_backward(n, number)]
        else:
            alike = siblings
        assert all(other.get(key) == mine.get(key) for other in alike), key


def same_layers(one, other):
    return STAGES[one].internal_layers is STAGES[other].internal_layers


def same_backward(one, other):
    return STAGES[one].backward_through_layers is STAGES[other].backward_through_layers


# What another base's recipe may say otherwise than SOLAR's of the same stage.
OF_THE_BASE = {"base_model", "tokenizer_config", "output_dir", "dataset_prepared_path", "eeve"} | {
    "sequence_len",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
}


@pytest.mark.parametrize("model", OTHERS)
@pytest.mark.parametrize("number", STAGES)
def test_another_bases_recipe_is_solars_but_for_what_the_base_decides(number, model):
    mine, solars = read(recipes_of(model)[number]), read(RECIPES[number])
    assert {key: value for key, value in mine.items() if key not in OF_THE_BASE} == {
        key: value for key, value in solars.items() if key not in OF_THE_BASE
    }


@pytest.mark.parametrize("model", MODELS)
def test_each_recipe_starts_from_the_one_before(model):
    recipes = {number: read(path) for number, path in recipes_of(model).items()}
    tokenizer = read(ROOT / "examples" / model / "tokenizer.yml")
    assert recipes[1]["base_model"] == tokenizer["base"] == MODELS[model][0]
    assert {recipe["tokenizer_config"] for recipe in recipes.values()} == {tokenizer["output"]}
    for number in range(2, 8):
        before = recipes[number - 1]["output_dir"]
        merged = STAGES[number - 1].internal_layers is Layers.QLORA
        assert recipes[number]["base_model"] == (f"{before}/merged" if merged else before)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number", STAGES)
def test_a_recipe_has_its_models_settings(number, model):
    recipe = read(recipes_of(model)[number])
    untie = {"untie": True} if number == 1 and model in TIED else {}
    assert recipe["eeve"] == {"stage": number, **untie}
    keys = ("sequence_len", "micro_batch_size", "gradient_accumulation_steps", "learning_rate")
    assert tuple(float(recipe[key]) for key in keys) == MODELS[model][1:]
    assert (recipe["lr_scheduler"], recipe["warmup_steps"], recipe["max_steps"]) == ("cosine", 10, 400)
    assert recipe["bf16"] is True and recipe["attn_implementation"] == "flash_attention_2"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number", STAGES)
def test_a_recipe_says_what_it_does_what_it_needs_and_how_to_run_it(number, model):
    path = recipes_of(model)[number]
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    for needed in (
        f"# Stage {number} of 7",
        "# Needs:",
        f"axolotl train {path.relative_to(ROOT)}",
        "# Change first:",
    ):
        assert needed in header


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number", STAGES)
def test_a_recipe_passes_axolotls_own_validation_with_the_plugin(number, model, tmp_path, monkeypatch):
    """The base model lies on the hub and earlier outputs do not exist yet: small stand-ins take their places."""
    from axolotl.cli.config import prepare_plugins
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    monkeypatch.chdir(tmp_path)
    recipe = read(recipes_of(model)[number])
    if number == 1:
        recipe["base_model"] = "./base"
    for directory in (recipe["base_model"], recipe["tokenizer_config"], "corpus"):
        Path(directory).mkdir(parents=True, exist_ok=True)
    Path("corpus/part.jsonl").write_text('{"text": "안녕"}\n')
    config = {key: CONFIGS[MODELS[model][0]][key] for key in ("model_type", "tie_word_embeddings")}
    if number > 1:  # stage 1 unties
        config["tie_word_embeddings"] = False
    (Path(recipe["base_model"]) / "config.json").write_text(json.dumps(config))
    cfg = DictDefault(recipe)
    try:
        prepare_plugins(cfg)
        h100 = {"bf16": True, "tf32": True, "fp8": True, "n_gpu": 8, "compute_capability": "sm_90"}
        checked = validate_config(cfg, capabilities=h100, env_capabilities={"torch_version": "2.13.0"})
    finally:
        PluginManager.get_instance().plugins.clear()
    assert checked.eeve.stage == number
    wanted = ["embed_tokens", "lm_head"] if number == 6 else None
    assert checked.lora_modules_to_save == wanted


def test_the_run_of_five_stages_is_stage_five_but_for_its_beginning_and_its_schedule():
    five, schedule = read(RECIPES[5]), read(ROOT / "examples" / "stages1to5.yml")
    assert {key for key in {*five, *schedule} if five.get(key) != schedule.get(key)} == {"base_model", "eeve"}
    assert schedule["eeve"]["stages"] == [1, 2, 3, 4, 5]
    assert schedule["base_model"] == read(RECIPES[1])["base_model"]


@pytest.mark.parametrize("folder", ["examples", "examples/demo"])
def test_a_pipelines_runs_are_a_chain(folder, monkeypatch):
    from eeve_axolotl.pipeline.runs import Run, check_chain
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.settings import read_yaml

    monkeypatch.chdir(ROOT)
    settings = read_yaml(f"{folder}/pipeline.yml", PipelineSettings)
    runs = [Run.read(each) for each in settings.runs]
    check_chain(runs)
    assert [each.name for run in runs for each in run.stages] == [str(stage) for stage in STAGES]


def test_evaluation_recipes_name_tasks_that_the_harness_knows(monkeypatch):
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(ROOT)
    hub, local = read(ROOT / "examples/eval.yml"), read(ROOT / "examples/eval_local.yml")
    known = TaskManager(include_path=local["include_path"]).all_tasks
    assert {task.partition(":")[0] for task in hub["lm_eval_tasks"]} <= set(known)
    assert set(local["tasks"]) <= set(known)
    kobest = {task.partition(":")[0] for task in hub["lm_eval_tasks"] if task.startswith("kobest")}
    assert {f"{task}_local" for task in kobest} == set(local["tasks"])


def test_local_kobest_tasks_read_the_dev_files(monkeypatch, tmp_path):
    from lm_eval.tasks import TaskManager, get_task_dict

    local = read(ROOT / "examples/eval_local.yml")
    (tmp_path / "kobest_dev").symlink_to(corpus("kobest_dev"))
    monkeypatch.chdir(tmp_path)
    tasks = get_task_dict(local["tasks"], TaskManager(include_path=str(ROOT / local["include_path"])))
    for name, task in tasks.items():
        documents = list(task.validation_docs())
        assert len(documents) > 100, name
        for document in documents[:20]:
            assert task.doc_to_choice(document) == document["choices"]
            assert task.doc_to_target(document) == document["answer"]
            assert len(task.doc_to_text(document)) > 5


def test_every_recipe_is_walked_here():
    found = {str(path.parent.relative_to(ROOT / "examples")) for path in ROOT.glob("examples/**/stage?.yml")}
    assert found == {*MODELS, "demo"}
