"""Every recipe: valid for Axolotl with the plugin, and different from its siblings only where the stage is."""

import functools
import json
from pathlib import Path

import pytest
import yaml

from eeve_axolotl.batch import accumulation_steps
from eeve_axolotl.checks import other_loss
from eeve_axolotl.planner.configs import CONFIGS
from eeve_axolotl.stages import STAGES, Layers
from tests.conftest import ROOT, corpus

# Of the base model: its name, sequence length, sequences a step, learning rate; and its micro batches in stages
# 1, 3 and 5, in 2 and 4, in 6 and 7.
MODELS = {
    ".": ("upstage/SOLAR-10.7B-v1.0", 4096, 8 * 4 * 8, 4e-5, (1, 32, 1)),  # paper 3.2
    "phi-2": ("microsoft/phi-2", 2048, 16 * 16 * 8, 2e-4, (8, 64, 4)),  # paper 3.2
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B", 4096, 256, 4e-5, (1, 32, 1)),
    "qwen2.5-1.5b": ("Qwen/Qwen2.5-1.5B", 4096, 256, 2e-4, (4, 32, 4)),
    "gemma-2-2b": ("google/gemma-2-2b", 4096, 256, 2e-4, (2, 16, 2)),
}
TIED = ("qwen2.5-1.5b", "gemma-2-2b")
OTHERS = [model for model in MODELS if model != "."]
EXAMPLES = ROOT / "examples"
FSDP2 = EXAMPLES / "many-gpus" / "fsdp2"
SHORT = EXAMPLES / "short"


def recipes_of(model: str) -> dict[int, Path]:
    return {number: EXAMPLES / model / f"stage{number}.yml" for number in STAGES}


RECIPES = recipes_of(".")


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# What a stage may say for itself; everything else must be the same in all seven.
OF_THE_STAGE = {"base_model", "output_dir", "eeve"}
OF_QLORA = {"adapter", "load_in_4bit", "lora_r", "lora_alpha", "lora_dropout", "lora_target_linear"}
OF_THE_BACKWARD_PASS = {"gradient_checkpointing_kwargs"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number", STAGES)
def test_a_recipe_differs_from_its_siblings_only_where_the_stage_does(number, model):
    mine, siblings = read(recipes_of(model)[number]), [read(path) for path in recipes_of(model).values()]
    for key in {key for recipe in siblings for key in recipe} - OF_THE_STAGE:
        if key in OF_QLORA:
            alike = [other for other, n in zip(siblings, STAGES, strict=True) if same_layers(n, number)]
        elif key in OF_THE_BACKWARD_PASS:
            alike = [other for other, n in zip(siblings, STAGES, strict=True) if same_backward(n, number)]
        elif key == "micro_batch_size":
            alike = [
                other
                for other, n in zip(siblings, STAGES, strict=True)
                if same_backward(n, number) and same_layers(n, number)
            ]
        else:
            alike = siblings
        assert all(other.get(key) == mine.get(key) for other in alike), key


def same_layers(one, other):
    return STAGES[one].internal_layers is STAGES[other].internal_layers


def same_backward(one, other):
    return STAGES[one].backward_through_layers is STAGES[other].backward_through_layers


# What another base's file may say otherwise than SOLAR's of the same name.
OF_THE_BASE = (
    "base_model",
    "base",
    "untie",
    "global_batch_size",
    "sequence_len",
    "micro_batch_size",
    "learning_rate",
)
OF_THE_BASE += ("new_tokens", "save_stages")


def lines_of(text: str) -> list[str]:
    """The lines, comments too, that a base does not decide; the header ends at the first empty line."""
    body = text.split("\n\n", 1)[1].replace("(schedule as in paper 3.2)", "(paper 3.2)")
    return [line for line in body.splitlines() if not line.lstrip(" #").startswith(OF_THE_BASE)]


# Plain Axolotl, one for all bases: `base_model` is the result of any.
AFTER_THE_STAGES = ("chat.yml", "dpo.yml")


@pytest.mark.parametrize("model", OTHERS)
def test_another_bases_files_are_solars_but_for_what_the_base_decides(model):
    names = sorted(path.name for path in EXAMPLES.glob("*.yml") if path.name not in AFTER_THE_STAGES)
    assert names == sorted(path.name for path in (EXAMPLES / model).glob("*.yml"))
    places = {
        "./outputs/": f"./outputs/{model}/",
        "examples/": f"examples/{model}/",
        f"examples/{model}/eval\n": "examples/eval\n",  # the tasks, which all share
        " ./tokenizer": f" ./outputs/{model}/tokenizer",
        " ./corpus": f" ./outputs/{model}/corpus",
    }
    for name in names:
        solars = (EXAMPLES / name).read_text(encoding="utf-8")
        for place, moved in places.items():
            solars = solars.replace(place, moved)
        assert lines_of((EXAMPLES / model / name).read_text(encoding="utf-8")) == lines_of(solars), name


@pytest.mark.parametrize("number", range(1, 6))
def test_a_sharded_recipe_is_the_stages_own_and_the_block_that_shards(number):
    sharded, plain = read(FSDP2 / f"stage{number}.yml"), read(RECIPES[number])
    differs = {key for key in {*sharded, *plain} if sharded.get(key) != plain.get(key)}
    assert differs - {"micro_batch_size"} == {"fsdp_version", "fsdp_config"}


@pytest.mark.parametrize("model", MODELS)
def test_a_global_batch_is_the_same_on_any_number_of_gpus(model):
    for path in [*recipes_of(model).values(), EXAMPLES / model / "stages1to5.yml"]:
        recipe = read(path)
        batch, micro = recipe["eeve"]["global_batch_size"], recipe["micro_batch_size"]
        assert batch == MODELS[model][2]
        assert "gradient_accumulation_steps" not in recipe
        for count in (1, 2, 4, 8):
            assert accumulation_steps(batch, micro, count) * micro * count == batch


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_recipe_plans_and_fits_a_gpu_of_80_gb(model, monkeypatch):
    from eeve_axolotl.planner import gpus
    from eeve_axolotl.planner.estimate import Options, estimate

    monkeypatch.chdir(ROOT)
    options = Options(gpu=gpus.find("h100-80gb"), gpus=8)
    for path in [*recipes_of(model).values(), EXAMPLES / model / "stages1to5.yml"]:
        for each in estimate(path, options):
            assert each.fits, (path, each.stage.name, each.advice)
            assert each.tokens == 400 * MODELS[model][1] * MODELS[model][2]


@pytest.mark.slow
def test_sharded_recipes_fit_eight_gpus_of_40_gb(monkeypatch):
    from eeve_axolotl.planner import gpus
    from eeve_axolotl.planner.estimate import Options, estimate

    monkeypatch.chdir(ROOT)
    options = Options(gpu=gpus.find("a100-40gb"), gpus=8, new_tokens=8_960, base_model=MODELS["."][0])
    for number in range(1, 6):
        (each,) = estimate(FSDP2 / f"stage{number}.yml", options)
        assert each.fits, (number, each.advice)


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
    recipe, stage = read(recipes_of(model)[number]), STAGES[number]
    _, length, batch, rate, (backward, head_only, qlora) = MODELS[model]
    untie = {"untie": True} if number == 1 and model in TIED else {}
    assert recipe["eeve"] == {"stage": number, "global_batch_size": batch, **untie}
    assert (recipe["sequence_len"], float(recipe["learning_rate"])) == (length, rate)
    micro = qlora if number > 5 else backward if stage.backward_through_layers else head_only
    assert recipe["micro_batch_size"] == micro
    assert (recipe["lr_scheduler"], recipe["warmup_steps"], recipe["max_steps"]) == ("cosine", 10, 400)
    assert recipe["bf16"] is True and recipe["attn_implementation"] == "flash_attention_2"
    assert other_loss(recipe) is None  # ours never holds the logits, in every stage


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


@functools.cache
def extended_tokenizer():
    """A stand-in of 120 tokens, 20 more than the stand-in of the base model has rows."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab={chr(0x4E00 + i): i for i in range(120)}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=chr(0x4E00))


def validated(recipe: dict, model: str, tied: bool, monkeypatch, tmp_path):
    """The recipe as Axolotl's validation with the plugin leaves it. The base model lies on the hub and earlier outputs
    do not exist yet: small stand-ins take their places."""
    from axolotl.cli.config import prepare_plugins
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    if recipe["base_model"] in CONFIGS:
        recipe["base_model"] = "./base"
    for directory in (recipe["base_model"], recipe["tokenizer_config"]):
        Path(directory).mkdir(parents=True, exist_ok=True)
    corpus = Path(recipe["datasets"][0]["path"])
    corpus = corpus if corpus.suffix else corpus / "part.jsonl"
    corpus.parent.mkdir(parents=True, exist_ok=True)
    corpus.write_text('{"text": "안녕"}\n')
    extended_tokenizer().save_pretrained(recipe["tokenizer_config"])
    config = {"model_type": CONFIGS[model]["model_type"], "tie_word_embeddings": tied, "vocab_size": 100}
    (Path(recipe["base_model"]) / "config.json").write_text(json.dumps(config))
    cfg = DictDefault(recipe)
    try:
        prepare_plugins(cfg)
        h100 = {"bf16": True, "tf32": True, "fp8": True, "n_gpu": 8, "compute_capability": "sm_90"}
        return validate_config(cfg, capabilities=h100, env_capabilities={"torch_version": "2.13.0"})
    finally:
        PluginManager.get_instance().plugins.clear()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number", STAGES)
def test_a_recipe_passes_axolotls_own_validation_with_the_plugin(number, model, tmp_path, monkeypatch):
    name = MODELS[model][0]
    tied = number == 1 and CONFIGS[name]["tie_word_embeddings"]  # stage 1 unties
    checked = validated(read(recipes_of(model)[number]), name, tied, monkeypatch, tmp_path)
    assert checked.eeve.stage == number
    wanted = ["embed_tokens", "lm_head"] if number == 6 else None
    assert checked.lora_modules_to_save == wanted
    assert (
        checked.gradient_accumulation_steps * checked.micro_batch_size == MODELS[model][2]
    )  # one process here


OTHER_RECIPES = [
    *EXAMPLES.glob("**/stages1to5.yml"),
    SHORT / "stage6.yml",
    *FSDP2.glob("*.yml"),
    *EXAMPLES.glob("demo/**/stage?.yml"),
]


@pytest.mark.parametrize("path", OTHER_RECIPES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_other_recipe_passes_axolotls_own_validation_too(path, tmp_path, monkeypatch):
    recipe = read(path)
    models = {MODELS[model][0]: model for model in MODELS}
    name = recipe["base_model"] if recipe["base_model"] in models else MODELS["."][0]
    checked = validated(recipe, name, CONFIGS[name]["tie_word_embeddings"], monkeypatch, tmp_path)
    assert checked.eeve.stage or checked.eeve.stages


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("way", ["zero2", "zero3"])
def test_deepspeeds_files_pass_too_and_shard_what_the_plan_says(way, number, tmp_path, monkeypatch):
    recipe = {**read(RECIPES[number]), "deepspeed": f"examples/many-gpus/deepspeed/{way}.json"}
    checked = validated(recipe, MODELS["."][0], False, monkeypatch, tmp_path)
    assert checked.deepspeed == recipe["deepspeed"]


@pytest.mark.parametrize("model", MODELS)
def test_the_run_of_five_stages_is_stage_five_but_for_its_beginning_and_its_schedule(model):
    five, schedule = read(EXAMPLES / model / "stage5.yml"), read(EXAMPLES / model / "stages1to5.yml")
    assert {key for key in {*five, *schedule} if five.get(key) != schedule.get(key)} == {"base_model", "eeve"}
    assert schedule["eeve"]["stages"] == [1, 2, 3, 4, 5]
    assert schedule["base_model"] == MODELS[model][0]
    assert bool(schedule["eeve"].get("untie")) is (model in TIED)


@pytest.mark.parametrize(
    "path",
    sorted(EXAMPLES.glob("**/pipeline*.yml")),
    ids=lambda path: str(path.relative_to(EXAMPLES)),
)
def test_a_pipelines_runs_are_a_chain(path, tmp_path, monkeypatch):
    from eeve_axolotl.errors import EEVEError
    from eeve_axolotl.pipeline.corpus_step import CorpusStep
    from eeve_axolotl.pipeline.runs import Run, check_chain
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.settings import read_yaml

    (tmp_path / "examples").symlink_to(EXAMPLES)  # without what a demo left in the checkout
    monkeypatch.chdir(tmp_path)
    settings = read_yaml(path, PipelineSettings)
    runs = [Run.read(each) for each in settings.runs]
    check_chain(runs)
    corpus_of_it = CorpusStep(settings.corpus)
    with pytest.raises(EEVEError, match="matches no file"):  # all that it lacks is the text
        corpus_of_it.check(runs, settings.tokenizer, settings.evaluate.texts)
    assert all(corpus_of_it.makes(path) for path in settings.evaluate.texts.values())
    wanted = ["6"] if path.parent == SHORT else [str(stage) for stage in STAGES]
    assert [each.name for run in runs for each in run.stages] == wanted


def test_the_short_road_is_stage_six_from_rows_that_were_fitted():
    short, six = SHORT / "stage6.yml", RECIPES[6]
    mine, sibling = read(short), read(six)
    differs = {key for key in {*mine, *sibling} if mine.get(key) != sibling.get(key)}
    assert differs == {"base_model", "output_dir"}
    pipeline, seven = read(SHORT / "pipeline.yml"), read(EXAMPLES / "pipeline.yml")
    assert {key for key in pipeline if pipeline[key] != seven.get(key)} == {"output", "start", "runs"}
    assert mine["base_model"] == pipeline["start"]["output"]
    assert pipeline["start"]["base"] == read(RECIPES[1])["base_model"]
    assert "Not the paper's way" in short.read_text(encoding="utf-8")


@pytest.mark.parametrize("model", MODELS)
def test_what_a_pipeline_says_of_start_fits_its_runs(model, tmp_path, monkeypatch):
    from eeve_axolotl.pipeline.corpus_step import CorpusStep
    from eeve_axolotl.pipeline.runs import Run
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.pipeline.start_step import StartStep

    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    text = Path("examples", model, "pipeline.yml").read_text(encoding="utf-8")
    block = text[text.index("# start:") :].split("\n\n")[0].replace("\n# ", "\n").removeprefix("# ")
    settings = PipelineSettings(**{**yaml.safe_load(text), **yaml.safe_load(block)})
    runs = [Run.read(each) for each in settings.runs]
    assert settings.start.base == runs[0].cfg["base_model"]
    assert f"base_model: {settings.start.output} there" in text
    runs[0].cfg["base_model"] = settings.start.output
    step = StartStep(settings.start, runs[0], CorpusStep(settings.corpus))
    step.check(runs, {}, settings.evaluate.texts)
    assert ("--untie" in step.arguments()) is (model in TIED)


@pytest.mark.parametrize("model", [*MODELS, "demo", "demo/greek"])
def test_the_other_files_are_valid_for_the_commands_that_read_them(model):
    from eeve_axolotl.corpus.settings import CorpusSettings
    from eeve_axolotl.settings import read_yaml
    from eeve_axolotl.tokenizer.settings import TokenizerSettings

    tokenizer = read_yaml(EXAMPLES / model / "tokenizer.yml", TokenizerSettings)
    corpus_of_it = read_yaml(EXAMPLES / model / "corpus.yml", CorpusSettings)
    assert corpus_of_it.tokenizer == tokenizer.output
    assert corpus_of_it.write.sequence_len == read(EXAMPLES / model / "stage6.yml")["sequence_len"]


@pytest.mark.slow
def test_evaluation_recipes_name_tasks_that_the_harness_knows(monkeypatch):
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(ROOT)
    hub, local = read(EXAMPLES / "eval.yml"), read(EXAMPLES / "eval_local.yml")
    known = TaskManager(include_path=local["include_path"]).all_tasks
    assert {task.partition(":")[0] for task in hub["lm_eval_tasks"]} <= set(known)
    assert set(local["tasks"]) <= set(known)
    kobest = {task.partition(":")[0] for task in hub["lm_eval_tasks"] if task.startswith("kobest")}
    assert {f"{task}_local" for task in kobest} == set(local["tasks"])


@pytest.mark.slow
def test_local_kobest_tasks_read_the_dev_files(monkeypatch, tmp_path):
    from lm_eval.tasks import TaskManager, get_task_dict

    local = read(EXAMPLES / "eval_local.yml")
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
    found = {str(path.parent.relative_to(EXAMPLES)) for path in EXAMPLES.glob("**/stage?.yml")}
    assert found == {*MODELS, "demo", "demo/greek", "many-gpus/fsdp2", "short"}
