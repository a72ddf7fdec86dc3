"""Wrong records are told with their file and what to do; what has changed since is never taken for done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from eeve_axolotl import inputs, report, vocabulary
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.settings import EvaluationSettings
from eeve_axolotl.records import HISTORY, RECORD, TOKENIZER_MANIFEST, weights_sha256
from tests.faults.grounds import Evaluating, chain, made_of, write_ground, write_model

EVALUATE = EvaluationSettings(texts={"Korean": "text.jsonl"})
BROKEN = [
    "",
    "null",
    "[]",
    '"x"',
    "{}",
    '{"weights": 1, "runs": 2, "settings": 3, "texts": 4}',
    '{"a": ',
    "[" * 100_000,
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_ground(tmp_path)
    return tmp_path


def run(here: Path, begin: str | None = None, **keys) -> Evaluating:
    launcher = Evaluating(EVALUATE)
    chain(here, launcher, evaluate=EVALUATE, **keys).run(begin)
    return launcher


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:12] or "empty")
@pytest.mark.parametrize("file", [
    f"out3/{RECORD}", "pipeline/eeve_pipeline.json", "pipeline/runs/stage3.json", "pipeline/evaluation/base.json",
    "base/tokenizer.json",
])  # fmt: skip
def test_a_wrong_record_is_told_with_its_file_and_what_to_do(here, file, content):
    run(here)
    (here / file).write_text(content)
    with pytest.raises(EEVEError, match=f"{file} (is|has|cannot).*; (remove|build)"):
        run(here)


@pytest.mark.parametrize("content", BROKEN[:4] + BROKEN[6:], ids=lambda content: content[:12] or "empty")
@pytest.mark.parametrize("file", [f"out3/{HISTORY}", f"out3/{RECORD}", "pipeline/eeve_pipeline.json"])
def test_a_report_names_the_file_that_is_wrong(here, file, content):
    run(here)
    (here / file).write_text(content)
    with pytest.raises(EEVEError, match=f"{file} (is|cannot).*; remove"):
        report.write("pipeline")


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:12] or "empty")
def test_a_wrong_manifest_of_a_tokenizer_is_told(here, content):
    (here / "base" / TOKENIZER_MANIFEST).write_text(content)
    with pytest.raises(EEVEError, match=f"{TOKENIZER_MANIFEST} .*; build the tokenizer again"):
        vocabulary.manifest_base_size("base")


@pytest.mark.parametrize("model", ["{}", '{"vocab": []}'])
def test_a_tokenizer_of_other_content_has_another_identity(here, model):
    before = tokenizer_identity("base")
    (here / "base/tokenizer.json").write_text(json.dumps({"model": json.loads(model)}))
    assert tokenizer_identity("base") != before


def test_a_run_of_which_nothing_has_changed_is_done(here):
    run(here)
    os.utime(here / "text.jsonl")
    again = run(here)
    assert again.trained() == again.evaluated() == []


CHANGED = {  # what is changed, and what the sentence names
    "text.jsonl": '{"text": "two"}\n',
    "base/config.json": '{"rope_theta": 7}',
    "base/tokenizer.json": '{"model": {"type": "BPE", "vocab": {"b": 0}, "merges": []}}',
    "out3/config.json": '{"rope_theta": 7}',
}


@pytest.mark.parametrize("file", CHANGED)
def test_a_changed_input_is_named_and_trains_again_only_on_request(here, file):
    run(here)
    at = (here / file).stat()
    (here / file).write_text(CHANGED[file])
    os.utime(here / file, ns=(at.st_atime_ns, at.st_mtime_ns))  # as `cp -p` does
    with pytest.raises(EEVEError, match=f"{file}|the tokenizer was built anew"):
        run(here)
    assert run(here, begin="3").trained() == ["stage3"]
    assert made_of(here / "out3") == f"weights of {(here / 'text.jsonl').read_text()}"
    assert run(here).trained() == []


def test_a_changed_held_out_text_is_evaluated_anew(here):
    (here / "held.jsonl").write_text('{"text": "one"}\n')
    global EVALUATE
    before, EVALUATE = EVALUATE, EvaluationSettings(texts={"Korean": "held.jsonl"})
    try:
        assert len(run(here).evaluated()) == 3
        (here / "held.jsonl").write_text('{"text": "two"}\n')
        again = run(here)
        assert len(again.evaluated()) == 3 and again.trained() == []
    finally:
        EVALUATE = before


def test_a_change_inside_a_large_file_is_seen(here, monkeypatch):
    monkeypatch.setattr(inputs, "WHOLE", 1000)
    monkeypatch.setattr(inputs, "BLOCK", 10)
    big = here / "big.jsonl"
    big.write_bytes(b"a" * 5000)
    before = inputs.of_path(big)
    assert inputs.of_path(big) == before
    with big.open("r+b") as file:
        file.seek(2345)
        file.write(b"b")
    assert inputs.changed(before, inputs.of_path(big)) == [str(big)]


def test_a_flipped_byte_in_a_stage_between_is_refused(here):
    cfg = yaml.safe_load((here / "stage3.yml").read_text())
    cfg["eeve"] = {"stages": [1, 2, 3], "save_stages": "all"}
    (here / "stage3.yml").write_text(yaml.safe_dump(cfg))
    for name in ("1", "2"):
        place = here / f"out3/stage{name}"
        place.mkdir(parents=True)
        write_model(place, b"stage " + name.encode())
        (place / RECORD).write_text(json.dumps({"stage": name, "weights": weights_sha256(place)}))
    run(here)
    assert run(here).evaluated() == []
    write_model(here / "out3/stage2", b"stage 3")
    with pytest.raises(EEVEError, match="out3/stage2/model.safetensors is not what stage 2 wrote.*--from 2"):
        run(here)


def test_two_stages_of_one_name_are_refused(here):
    cfg = yaml.safe_load((here / "stage3.yml").read_text())
    cfg |= {"base_model": "out3", "output_dir": "again"}
    (here / "again.yml").write_text(yaml.safe_dump(cfg))
    with pytest.raises(EEVEError, match="stage3.yml and again.yml both have a stage 3"):
        chain(here, runs=["stage3.yml", "again.yml"])
