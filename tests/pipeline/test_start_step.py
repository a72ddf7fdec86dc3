"""The start of new output rows as a step of the chain: in its place, made once, known by content, refused early."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import yaml

from eeve_axolotl import inputs, report
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.settings import EvaluationSettings
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.pipeline.tasks import print_tasks
from eeve_axolotl.planner.configs import CONFIGS
from eeve_axolotl.planner.estimate import Options, estimate
from eeve_axolotl.planner.gpus import find
from eeve_axolotl.preview import look_at_ours
from eeve_axolotl.records import START, STARTED
from eeve_axolotl.settings import read_yaml
from tests.faults.grounds import Evaluating, Launcher, chain, made_of, write_ground, write_model
from tests.pipeline.test_corpus_step import make, write_corpus

EVALUATE = EvaluationSettings(texts={"Korean": "held_out.jsonl"})
SOLAR = "upstage/SOLAR-10.7B-v1.0"
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2,
         "num_hidden_layers": 1, "vocab_size": 40}  # fmt: skip
TINY = {**CONFIGS[SOLAR], **SMALL}
LICENSED = "---\nlicense: cc-by-4.0\n---\n# Mine\n"


class Starting(Evaluating):
    """Writes a started model too, of weights that tell of its text."""

    def __init__(self) -> None:
        super().__init__(EVALUATE)

    def __call__(self, arguments, log, on_step):
        if arguments[:2] == ["eeve", "start"]:
            start(arguments)
        return super().__call__(arguments, log, on_step)


def start(arguments: list[str]) -> None:
    """As `axolotl eeve start` writes it, the record with the weights."""
    pairs = list(itertools.pairwise(arguments))
    options = dict(pairs)
    texts = [value for key, value in pairs if key == "--text"]
    output = Path(options["--output"])
    output.mkdir()
    write_model(
        output, b"started on " + b"".join(Path(each).read_bytes() for each in texts if Path(each).is_file())
    )
    record = {"base": arguments[2], "tokenizer": options["--tokenizer"]}
    record["texts"] = {each: inputs.of_path(each) for each in texts}
    (output / START).write_text(json.dumps(record))


@pytest.fixture(autouse=True)
def ground(tmp_path, monkeypatch) -> Path:
    """A base, texts, and a stage that begins with what the step makes."""
    monkeypatch.chdir(tmp_path)
    write_ground(tmp_path)
    Path("base/config.json").write_text(json.dumps(TINY))
    Path("base/README.md").write_text(LICENSED)
    Path("held_out.jsonl").write_text('{"text": "held out"}\n')
    Path("other.jsonl").write_text('{"text": "other"}\n')
    Path("empty").mkdir()
    change(base_model="started")
    return tmp_path


def change(**keys) -> None:
    cfg = yaml.safe_load(Path("stage3.yml").read_text())
    Path("stage3.yml").write_text(yaml.safe_dump({**cfg, **keys}))


def whole(launcher: Launcher | None = None, **keys):
    of_the_step = {"base": "base", "output": "started", **keys.pop("start", {})}
    return chain(Path(), launcher or Starting(), **{"evaluate": EVALUATE, "start": of_the_step, **keys})


def run(begin: str | None = None, **keys) -> list[str]:
    """Run the chain; the commands that it took."""
    launcher = Starting()
    whole(launcher, **keys).run(begin)
    return [" ".join(each[1:3]) if each[0] == "eeve" else each[0] for each in launcher.commands]


ALL = ["evaluate base", "start base", "evaluate started", "train", "evaluate out3"]


def test_it_comes_after_the_bases_figures_and_before_the_extended_models_and_is_made_once():
    assert run() == ALL
    assert made_of(Path("started")).startswith("started on ") and "one" in made_of(Path("started"))
    assert run() == []
    assert run(begin="3") == ["train"]  # the figures are of weights as before


def test_its_place_is_after_tokenizer_and_corpus_also_without_figures():
    corpus_is_read()
    tokenizer = {"base": "base", "output": "base", "corpus": [{"path": "other.jsonl"}]}
    Path("tokenizer.yml").write_text(yaml.safe_dump(tokenizer))
    keys = {"corpus": "corpus.yml", "tokenizer": "tokenizer.yml"}
    names = [each.name for each in whole(**keys).tasks.in_order()]
    assert names == [
        "tokenizer",
        "corpus",
        "evaluate.base",
        "start",
        "evaluate.extended",
        "stage3",
        "evaluate.stage3",
    ]
    names = [each.name for each in whole(**keys, evaluate=None).tasks.in_order()]
    assert names == ["tokenizer", "corpus", "start", "stage3"]


def test_a_dry_run_shows_it(capsys):
    print_tasks(whole().tasks)
    assert "  to do  start: started\n" in capsys.readouterr().out
    run()
    print_tasks(whole().tasks, begin="3")
    printed = capsys.readouterr().out
    assert "  done   start: started\n" in printed and "to do  stage 3" in printed


def corpus_is_read() -> None:
    Path("raw.jsonl").write_text('{"text": "raw"}\n')
    write_corpus()
    change(datasets=[{"path": "corpus", "type": "completion", "split": "train"}], sequence_len=128)


def told_to_read(**keys) -> list[str]:
    arguments = whole(**keys).tasks.start.arguments()
    return [value for key, value in itertools.pairwise(arguments) if key == "--text"]


def test_it_reads_what_the_stages_read_and_nothing_that_is_held_out():
    assert told_to_read() == ["text.jsonl"]
    assert told_to_read(start={"texts": ["other.jsonl"]}) == ["other.jsonl"]
    change(datasets=[{"path": "json", "data_files": ["other.jsonl", "t*.jsonl"], "type": "completion"}])
    assert told_to_read() == ["other.jsonl", "text.jsonl"]
    corpus_is_read()
    assert told_to_read(corpus="corpus.yml") == ["corpus/train"]
    assert told_to_read(corpus="corpus.yml", start={"texts": ["./corpus", "other.jsonl"]}) == [
        "corpus/train", "other.jsonl"
    ]  # fmt: skip
    make(read_yaml("corpus.yml", CorpusSettings))
    assert told_to_read() == ["corpus/train"]  # a corpus of ours from before, which no step makes


def test_its_command_has_what_the_settings_say():
    arguments = whole(start={"tokens": 7, "max_length": 9, "dtype": "bfloat16"}).tasks.start.arguments()
    assert arguments[:3] == ["eeve", "start", "base"] and "--untie" not in arguments
    options = dict(zip(arguments[3::2], arguments[4::2], strict=True))
    assert options == {
        "--tokenizer": "base", "--output": "started", "--text": "text.jsonl", "--tokens": "7", "--max-length": "9",
        "--dtype": "bfloat16",
    }  # fmt: skip


@pytest.mark.parametrize("mine, of_the_run, given", [
    (None, False, False), (None, True, True), (True, False, True), (False, True, False)
])  # fmt: skip
def test_it_unties_as_the_first_run_does_if_it_does_not_say_otherwise(mine, of_the_run, given):
    change(eeve={"stage": 3, "untie": of_the_run})
    assert ("--untie" in whole(start={"untie": mine}).tasks.start.arguments()) is given


@pytest.mark.parametrize("what, keys, told", [
    (lambda: Path("text.jsonl").write_text('{"text": "two"}\n'), {}, "text.jsonl has another content"),
    (lambda: None, {"start": {"texts": ["other.jsonl"]}}, "texts was .*text.jsonl.* and is .*other.jsonl"),
    (lambda: None, {"start": {"tokens": 5}}, "tokens was 100000 and is 5"),
    (lambda: None, {"start": {"untie": True}}, "untie was False and is True"),
    (lambda: write_model(Path("base"), b"another"), {}, "the model that it starts from is another"),
    (lambda: shutil.copytree("base", "base2"), {"start": {"base": "base2"}}, "base was base and is base2"),
    (lambda: Path("base/tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"b": 0}, "merges": []}}'),
     {}, "the tokenizer was built anew"),
    (lambda: write_model(Path("started"), b"mine"), {}, "started/model.safetensors has another content"),
])  # fmt: skip
def test_what_has_changed_since_it_was_made_is_named_and_nothing_is_done(what, keys, told):
    run()
    what()
    launcher = Starting()
    with pytest.raises(
        EEVEError, match=f"started is made, but since then.*{told}.*remove started to have it made again"
    ):
        whole(launcher, **keys).run()
    assert launcher.commands == []


def test_removed_it_is_made_again_and_the_stages_after_it_are_asked_for():
    run()
    Path("text.jsonl").write_text('{"text": "two"}\n')
    shutil.rmtree("started")
    with pytest.raises(EEVEError, match="--from 3"):
        run()
    assert run(begin="3") == ["start base", "evaluate started", "train", "evaluate out3"]
    assert "two" in made_of(Path("started")) and run() == []


def test_made_by_hand_it_is_known_by_its_own_record():
    start(whole().tasks.start.arguments())
    assert "start base" not in run()
    Path("pipeline", STARTED).unlink(missing_ok=True)
    Path("text.jsonl").write_text('{"text": "two"}\n')
    with pytest.raises(EEVEError, match="started is made, but since then text.jsonl has another content"):
        run()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"texts": 3}'])
@pytest.mark.parametrize("file", [f"started/{START}", f"pipeline/{STARTED}"])
def test_a_wrong_record_is_told_with_its_file_and_what_to_do(file, content):
    run()
    Path(file).write_text(content)
    with pytest.raises(EEVEError, match=f"{file} (is|has|cannot).*; remove"):
        run()


def test_weights_without_the_record_are_not_taken_for_done():
    run()
    Path("started", START).unlink()
    (task,) = [each for each in whole().tasks.in_order() if each.starts]
    assert not task.done


def test_a_command_that_writes_no_model_ends_the_chain():
    launcher = Evaluating(EVALUATE)
    with pytest.raises(EEVEError, match=f"left no {START} in started"):
        whole(launcher).run()
    assert launcher.trained() == []


def test_killed_between_the_model_and_the_chains_note_of_it_it_is_done_and_known():
    run()
    state = Path("pipeline", STARTED)
    state.write_text(
        json.dumps({key: each for key, each in json.loads(state.read_text()).items() if key != "made"})
    )
    assert run() == []
    Path("text.jsonl").write_text('{"text": "two"}\n')
    with pytest.raises(EEVEError, match="text.jsonl has another content"):
        run()


@pytest.mark.parametrize("keys, of_the_run, told", [
    ({}, {"base_model": "base"}, "writes started, but stage3.yml starts from base; set `base_model: started` in stage3.yml"),
    ({}, {"tokenizer_config": None}, "stage3.yml names no tokenizer_config"),
    ({"start": {"base": "./nowhere"}}, {}, "the base ./nowhere does not exist"),
    ({"start": {"output": "base"}}, {"base_model": "base"}, "its output base is the base"),
    ({"start": {"output": "words"}}, {"base_model": "words", "tokenizer_config": "words"}, "words is the tokenizer"),
    ({"start": {"output": "out3"}}, {"base_model": "out3"}, "out3 is output_dir of stage3.yml"),
    ({"start": {"output": "pipeline"}}, {"base_model": "pipeline"}, "pipeline is the pipeline's output"),
    ({"start": {"output": "place"}}, {"base_model": "place", "tokenizer_config": "place/words"},
     "output place has the tokenizer, place/words, in it"),
    ({"start": {"output": "."}}, {"base_model": "."}, "output . has the base, base, in it"),
    ({"start": {"texts": ["nothing.jsonl"]}}, {}, "there is no text in nothing.jsonl"),
    ({"start": {"texts": ["empty"]}}, {}, "there is no text in empty"),
    ({"start": {"texts": ["held_out.jsonl"]}}, {}, "has the text Korean in it, which is evaluated on"),
    ({"start": {"texts": ["."]}}, {}, "has the text Korean in it"),
    ({}, {"datasets": [{"path": "org/on-the-hub", "type": "completion"}]}, "trains on org/on-the-hub, .* under `texts`"),
    ({}, {"datasets": [{"path": "text.jsonl", "type": "completion", "field": "body"}]}, "no local text with a column"),
    ({}, {"datasets": [{"path": "text.jsonl", "type": "alpaca"}]}, "no local text with a column `text`"),
    ({}, {"datasets": None}, "stage3.yml names no text"),
    ({}, {"eeve": {"stage": 3, "init": {"output": "mean"}}}, "eeve.init.output: mean"),
    ({}, {"revision_of_model": "v2"}, "says `revision_of_model`"),
    ({}, {"tokens": ["<one>"]}, "adds `tokens`"),
])  # fmt: skip
def test_what_cannot_fit_is_refused_before_any_work(keys, of_the_run, told):
    change(**of_the_run)
    with pytest.raises(EEVEError, match=told):
        whole(**keys)


def test_a_place_that_holds_something_else_is_refused_before_any_work_and_kept():
    Path("started").mkdir()
    whole().tasks.start.check_place()
    Path("started/thesis.txt").write_text("mine")
    launcher = Starting()
    with pytest.raises(
        EEVEError, match="start: output: started holds something that this command did not write"
    ):
        whole(launcher).run()
    assert launcher.commands == [] and Path("started/thesis.txt").read_text() == "mine"


def test_a_base_of_one_matrix_is_refused_before_any_work_if_it_gets_no_second():
    Path("base/config.json").write_text(json.dumps({**TINY, "tie_word_embeddings": True}))
    launcher = Starting()
    with pytest.raises(EEVEError, match="base has one matrix for both embeddings.*`untie: true`.*stage3.yml"):
        whole(launcher).run()
    assert launcher.commands == []
    whole(launcher, start={"untie": True}).run()


# --- which model is the base ---


def test_report_card_and_figures_are_of_the_real_base():
    run()
    chain_file = json.loads(Path("pipeline/eeve_pipeline.json").read_text())
    assert chain_file["base_model"] == "base" and chain_file["tokenizer"] == "base"
    tasks = {each.what: each.arguments for each in whole().tasks.in_order()}
    assert tasks["evaluate: base"][2] == "base" and "--tokenizer" not in tasks["evaluate: base"]
    assert tasks["evaluate: extended"][2] == "started" and "--tokenizer" in tasks["evaluate: extended"]
    card = report.write("pipeline").directory.joinpath("README.md").read_text()
    assert "license: cc-by-4.0" in card and "base with" in card and "started" not in card


@pytest.mark.parametrize("beside", [True, False])
def test_the_planner_knows_the_shape_before_the_model_is_made(beside):
    change(max_steps=2, sequence_len=64, micro_batch_size=1, gradient_accumulation_steps=1)
    pipeline = {"output": "p", "runs": ["stage3.yml"], "start": {"base": SOLAR, "output": "./started"}}
    where = Path("pipeline.yml") if beside else Path("elsewhere/pipeline.yml")
    where.parent.mkdir(exist_ok=True)
    where.write_text(yaml.safe_dump(pipeline))
    options = Options(gpu=find("h100-80gb"), new_tokens=100)
    (planned,) = estimate(where, options)
    change(base_model=SOLAR)
    (of_the_base,) = estimate("stage3.yml", options)
    assert planned.memory == of_the_base.memory
    if beside:
        change(base_model="started")
        assert estimate("stage3.yml", options)[0].memory == of_the_base.memory


def test_a_check_of_the_pipeline_looks_at_the_real_base_and_one_of_the_stage_names_the_maker(ground):
    pipeline = {"output": "p", "runs": ["stage3.yml"], "start": {"base": "base", "output": "started"}}
    Path("pipeline.yml").write_text(yaml.safe_dump(pipeline))
    problems = look_at_ours("pipeline.yml", PipelineSettings).problems
    assert not [each for each in problems if "does not exist" in each]
    from eeve_axolotl.checks import input_problems

    cfg = {**yaml.safe_load(Path("stage3.yml").read_text()), "axolotl_config_path": "stage3.yml"}
    (told,) = input_problems(cfg)
    maker = "`start` in pipeline.yml makes it of base: run `axolotl eeve run pipeline.yml` first"
    assert told == f"base_model started does not exist; {maker}"
