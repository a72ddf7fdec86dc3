"""`axolotl eeve init`: files that are right where they are, batches that fit, and nothing written where it cannot work."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from eeve_axolotl import languages
from eeve_axolotl.cli import eeve
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.pipeline.tasks import Tasks
from eeve_axolotl.planner.configs import CONFIGS
from eeve_axolotl.project import edits
from eeve_axolotl.settings import read_yaml
from eeve_axolotl.tokenizer.settings import TokenizerSettings

KOREAN = "안녕하세요, 오늘은 날씨가 좋네요."
YAMLS = {"tokenizer.yml", "corpus.yml", "pipeline.yml", "stages1to5.yml", "stage6.yml", "stage7.yml"}
TINY = {**CONFIGS["upstage/SOLAR-10.7B-v1.0"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500}  # fmt: skip


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """A directory with a small base, and text in two languages."""
    monkeypatch.chdir(tmp_path)
    write_base("base")
    write_text("ko/a.jsonl", KOREAN)
    write_text("en.jsonl", "It is a fine day.")


def write_base(name: str, **config) -> None:
    Path(name).mkdir()
    Path(name, "config.json").write_text(json.dumps({**TINY, **config}))


def write_text(name: str, text: str, column: str = "text") -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(json.dumps({column: text}) + "\n")


def init(
    *arguments: str,
    status: int = 0,
    base: str = "base",
    corpus: str = "ko",
    new: tuple[str, ...] = ("--language", "ko"),
):
    given = ["init", "mine", "--base", base, "--corpus", corpus, *new, *arguments]
    done = CliRunner().invoke(eeve, given, catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done


def read(name: str) -> dict:
    return yaml.safe_load(Path("mine", name).read_text())


def test_the_project_is_a_chain_that_could_begin_where_it_lies(ground, monkeypatch):
    init("--gpus", "0", "--keep", "English=en.jsonl")
    assert {path.name for path in Path("mine").iterdir()} == {*YAMLS, "README.md"}
    monkeypatch.chdir("mine")
    settings = read_yaml("pipeline.yml", PipelineSettings)
    names = [each.name for each in Tasks("pipeline.yml", settings).in_order()]
    assert names[:5] == ["tokenizer", "corpus", "evaluate.base", "start", "evaluate.extended"]
    assert names[-1] == "evaluate.stage7"
    assert read_yaml("tokenizer.yml", TokenizerSettings).script == ["Hangul"]
    assert settings.evaluate.prompts == ["안녕하세요, 오늘은 날씨가", "It is a"]
    assert list(read_yaml("corpus.yml", CorpusSettings).mix) == ["korean", "english"]
    assert all(Path(each.path).exists() for each in read_yaml("tokenizer.yml", TokenizerSettings).corpus)
    for name in YAMLS:  # nothing in it leads back to where the recipes came from
        assert "examples/" not in Path(name).read_text()


def test_paths_inside_the_project_stay_inside_and_others_are_whole(ground, tmp_path):
    Path("base").rename("outside")
    Path("mine").mkdir()
    Path("ko").rename("mine/raw")
    init("--gpus", "0", base="outside", corpus="mine/raw")
    assert read("tokenizer.yml")["corpus"] == [{"path": "./raw"}]
    assert read("pipeline.yml")["start"]["base"] == str(tmp_path / "outside")


@pytest.mark.parametrize(
    "name, gpus", [("upstage/SOLAR-10.7B-v1.0", 8), ("Qwen/Qwen2.5-1.5B", 1), ("Qwen/Qwen2.5-1.5B", 3)]
)
def test_batches_and_launcher_fit_the_gpus(ground, name, gpus):
    from eeve_axolotl.planner.estimate import Options, check_fits, estimate
    from eeve_axolotl.planner.gpus import find

    init("--gpus", str(gpus), "--gpu", "h100-80gb", base=name)
    options = Options(gpu=find("h100-80gb"), gpus=gpus, new_tokens=8_960, base_model=name)
    found = [each for run in read("pipeline.yml")["runs"] for each in estimate(Path("mine", run), options)]
    check_fits(found, options)
    assert [each.stage.name for each in found] == list("1234567")
    assert all(each.training.step.sequences in (256, 264) for each in found)  # 3 GPUs do not divide 256
    one, two = (each.training.step.micro_batch for each in found[:2])
    assert two >= one and (two > one or gpus == 3)  # nothing runs backward in the second
    launcher = read("pipeline.yml")
    assert launcher["launcher"] == ("python" if gpus == 1 else "torchrun")
    assert launcher.get("launcher_args") == (None if gpus == 1 else [f"--nproc_per_node={gpus}"])
    tied = CONFIGS[name]["tie_word_embeddings"]
    assert bool(read("stages1to5.yml")["eeve"].get("untie")) is tied
    assert float(read("stage6.yml")["learning_rate"]) == (2e-4 if tied else 4e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("gpus", [("--gpus", "0"), ("--gpus", "1", "--memory", "80")])
def test_output_rows_start_from_text_if_it_is_not_left_out(ground, monkeypatch, tied, gpus):
    write_base("other", tie_word_embeddings=tied)
    init(*gpus, base="other")
    start = read("pipeline.yml")["start"]
    assert start.pop("base") == str(Path("other").absolute())
    of_gpus = {} if gpus[1] == "0" else {"dtype": "bfloat16"}
    assert start == {"output": "./started", **of_gpus, **({"untie": True} if tied else {})}
    assert read("stages1to5.yml")["base_model"] == "./started"
    shutil.rmtree("mine")
    init(*gpus, "--no-start", base="other")
    assert "start" not in read("pipeline.yml")
    assert read("stages1to5.yml")["base_model"] == str(Path("other").absolute())
    # What the comment says to do is what the project has otherwise.
    told = re.search(r"(?m)^# (start: .*)$", Path("mine/pipeline.yml").read_text())[1]
    assert yaml.safe_load(told)["start"] == {"base": str(Path("other").absolute()), "output": "./started"}
    monkeypatch.chdir("mine")
    assert "start" not in [
        each.name for each in Tasks("pipeline.yml", read_yaml("pipeline.yml", PipelineSettings)).in_order()
    ]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("start", [(), ("--no-start",)])
@pytest.mark.parametrize("gpus", [("--gpus", "0"), ("--gpus", "8", "--gpu", "h100-80gb")])
def test_the_short_road_is_one_stage_from_the_base(ground, monkeypatch, tied, start, gpus):
    write_base("other", tie_word_embeddings=tied)
    init("--short", *gpus, *start, base="other")
    whole = str(Path("other").absolute())
    assert {path.name for path in Path("mine").iterdir()} == {
        "tokenizer.yml", "corpus.yml", "pipeline.yml", "stage6.yml", "README.md"
    }  # fmt: skip
    pipeline, stage = read("pipeline.yml"), read("stage6.yml")
    assert pipeline["runs"] == ["stage6.yml"]
    assert stage["base_model"] == (whole if start else "./started")
    assert stage["eeve"]["stage"] == 6 and "untie" not in stage["eeve"]
    assert (pipeline.get("start") or {}).get("untie", False) is (tied and not start)
    if start:  # what the comment says to do, a tied base's second matrix included
        told = yaml.safe_load(re.search(r"(?m)^# (start: .*)$", Path("mine/pipeline.yml").read_text())[1])
        assert told["start"] == {"base": whole, "output": "./started", **({"untie": True} if tied else {})}
    readme = Path("mine/README.md").read_text()
    assert "one stage instead of" in readme and "stage7" not in readme and "stages1to5" not in readme
    monkeypatch.chdir("mine")
    tasks = Tasks("pipeline.yml", read_yaml("pipeline.yml", PipelineSettings))
    names = [each.name for each in tasks.in_order()]
    assert names[-1] == "evaluate.stage6" and ("start" in names) is not bool(start)


def test_little_memory_is_met_with_checkpointing_and_too_little_is_said(ground):
    init("--gpus", "1", "--memory", "20", base="upstage/SOLAR-10.7B-v1.0", status=1)
    assert not Path("mine").exists()
    done = init("--gpus", "1", "--memory", "30", base="upstage/SOLAR-10.7B-v1.0")
    assert read("stages1to5.yml")["gradient_checkpointing"] is True and "checkpointed" in done.output


@pytest.mark.parametrize("name", [*sorted(YAMLS), "README.md"])
def test_a_file_of_the_users_stops_it_before_anything_is_written(ground, name):
    Path("mine").mkdir()
    Path("mine", name).write_text("mine")
    done = init("--gpus", "0", status=1)
    assert name in done.output and [path.name for path in Path("mine").iterdir()] == [name]
    assert Path("mine", name).read_text() == "mine"


@pytest.mark.parametrize("arguments, keys, told", [
    (["--gpus", "0"], {"base": "nowhere"}, "OWNER/NAME"),
    (["--gpus", "0"], {"base": "./nowhere"}, "config.json is missing"),
    (["--gpus", "0"], {"base": "someone/unknown"}, "HF_HUB_OFFLINE is set"),
    (["--gpus", "0"], {"corpus": "nothing"}, "nothing matches no file"),
    (["--gpus", "0"], {"corpus": "en.jsonl"}, "none of them in the script Hangul"),
    (["--gpus", "0", "--column", "body"], {}, "body"),
    (["--gpus", "0"], {"new": ("--language", "xx")}, "give it with --script"),
    (["--gpus", "0"], {"new": ("--script", "Klingon")}, "no such script"),
    (["--gpus", "0"], {"new": ()}, "--language"),
    (["--gpus", "0", "--keep", "en.jsonl"], {}, "--keep English=./english"),
    (["--gpus", "0", "--keep", "Korean=ko"], {}, "a language twice"),
    (["--gpu", "h1000"], {}, "h1000 is not known; give one of"),
    ([], {}, "this machine has no GPU"),
])  # fmt: skip
def test_what_cannot_work_is_told_and_nothing_is_written(ground, arguments, keys, told, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert told in init(*arguments, status=1, **keys).output
    assert not Path("mine").exists()


def test_a_language_that_no_list_knows_has_its_script_alone(ground):
    write_text("th.jsonl", "สวัสดีครับ")
    done = init("--gpus", "0", corpus="th.jsonl", new=("--language", "th"))
    assert "function words of Thai" in done.output and "--keep" in done.output
    assert read("corpus.yml")["mix"] == {
        "thai": {"share": 1.0, "filters": {"scripts": ["Thai"]}, "rule": "coverage",
                 "sources": [{"path": str(Path("th.jsonl").absolute())}]}
    }  # fmt: skip


def test_columns_and_odd_names_are_right_in_the_files(ground, tmp_path):
    write_text("한국 # 어.jsonl", KOREAN, column="body: x")
    write_base("my base")
    init("--gpus", "0", "--column", "body: x", base="my base", corpus="한국 # 어.jsonl")
    assert read("tokenizer.yml")["corpus"] == [
        {"path": str(tmp_path / "한국 # 어.jsonl"), "columns": ["body: x"]}
    ]
    assert read("pipeline.yml")["start"]["base"] == read("tokenizer.yml")["base"] == str(tmp_path / "my base")


def test_every_language_has_a_script_that_unicode_has():
    for code in languages.LANGUAGES:
        known = languages.find(code, ())
        assert languages.find(None, known.scripts).scripts == known.scripts


def test_a_key_that_a_recipe_no_longer_has_is_not_passed_over():
    recipe = "a: 1    # one\nlist:\n  - b: 2\n"
    assert edits.changed(recipe, {"a": 1, "b": "x: y"}) == 'a: 1    # one\nlist:\n  - b: "x: y"\n'
    assert edits.changed(recipe, {"a": 2}).startswith("a: 2\n")  # what was said of 1 does not hold
    for change in (
        lambda: edits.changed(recipe, {"c": 1}),
        lambda: edits.without(recipe, "c"),
        lambda: edits.below(recipe, "c"),
    ):
        with pytest.raises(KeyError):
            change()
