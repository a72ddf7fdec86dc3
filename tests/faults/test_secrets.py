"""No credential reaches a file of ours, whatever key, URL or option it came in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eeve_axolotl import secrets
from eeve_axolotl.evaluation.settings import EvaluationSettings, subject
from eeve_axolotl.records import HISTORY
from tests.faults.grounds import Launcher, chain, train, write_ground

CANARY = "c4n4ry"
PLANTED = {
    "comet_api_key": CANARY,
    "comet_workspace": CANARY,
    "mlflow_tracking_uri": f"https://me:{CANARY}@mlflow.example.org",
    "wandb_project": CANARY,
    "hub_token": CANARY,
    "hub_model_id": "me/model",
    "Some-Password": CANARY,
    "storage_options": {
        "key": CANARY,
        "secret": CANARY,
        "region": "here",
        "deeper": [{"auth_token": CANARY}],
    },
    "ddp_timeout": 1800,
    "some_url": f"s3://{CANARY}:x@bucket/a and https://{CANARY}@host/b?X-Amz-Signature={CANARY}&part=1",
    "command": f"serve --api-key {CANARY} --port 1 --token={CANARY}",
    "special_tokens": {"eos_token": "</s>", "pad_token": "<pad>"},
}
DATASETS = [
    {"path": "text.jsonl", "type": "completion"},
    {"path": f"https://user:{CANARY}@example.org/data.jsonl?token={CANARY}", "type": "completion"},
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_planted_credentials_reach_no_file(here):
    """The chain's files, the history that the trainer writes, figures and the report, all from one config full of them."""
    from axolotl.utils.dict import DictDefault

    from eeve_axolotl.trainer.settings import chosen

    write_ground(here, stages=(6,), **PLANTED)
    path = here / "stage6.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"datasets": DATASETS}))
    written = here / "written"
    written.mkdir()
    text = f"{here / 'text.jsonl'}"

    class Training(Launcher):
        def __call__(self, arguments, log, on_step):
            status = super().__call__(arguments, log, on_step)
            if arguments[0] == "train":
                cfg = yaml.safe_load(Path(arguments[1]).read_text())
                Path("out6", HISTORY).write_text(
                    json.dumps({"steps": [], "settings": chosen(DictDefault(cfg))})
                )
            elif arguments[1] == "evaluate":
                output = Path(arguments[arguments.index("--output") + 1])
                tokenizer = (
                    arguments[arguments.index("--tokenizer") + 1] if "--tokenizer" in arguments else None
                )
                figures = {"name": "x", "texts": {}, **subject(arguments[2], tokenizer, evaluate)}
                output.parent.mkdir(exist_ok=True)
                output.write_text(json.dumps(figures))
            return status

    evaluate = EvaluationSettings(texts={"Korean": text})
    chain(here, Training(), runs=["stage6.yml"], evaluate=evaluate).run()
    files = [each for each in here.rglob("*") if each.is_file() and each != path]
    assert {HISTORY, "stage6.json", "report.html", "report.md", "README.md", "eeve_pipeline.json"} <= {
        each.name for each in files
    }
    assert not [str(each) for each in files if CANARY.encode() in each.read_bytes()]
    history = json.loads((here / "out6/merged" / HISTORY).read_text())["settings"]
    assert history["hub_model_id"] == "me/model" and history["special_tokens"]["eos_token"] == "</s>"


def test_a_history_of_an_earlier_version_is_told_without_its_credentials(here):
    write_ground(here)

    def training(arguments, log, on_step):
        log.write_text("")
        if arguments[0] == "train":
            cfg = yaml.safe_load(Path(arguments[1]).read_text())
            train(cfg, arguments)
            Path(cfg["output_dir"], HISTORY).write_text(
                json.dumps({"steps": [], "settings": {**cfg, **PLANTED}})
            )
        return 0

    evaluate = EvaluationSettings(texts={"Korean": "text.jsonl"})
    chain(here, training, evaluate=evaluate).run()
    assert (here / "pipeline/report/report.html").is_file()
    told = [*(here / "pipeline").rglob("*"), here / "out3" / "README.md"]
    assert not [str(each) for each in told if each.is_file() and CANARY.encode() in each.read_bytes()]


@pytest.mark.parametrize("key, value", PLANTED.items())
def test_a_setting_is_told_without_its_credential(key, value):
    told = secrets.redacted({"outer": [{key: value}]})
    assert CANARY not in json.dumps(told)
    if CANARY not in json.dumps(value):
        assert told == {"outer": [{key: value}]}


@pytest.mark.parametrize("value", [
    "hf_abcdefghijklmnopqrstuvwx", "ghp_abcdefghijklmnopqrstuvwx", "AKIAABCDEFGHIJKLMNOP", "sk-abcdefghijklmnopqrst",
])  # fmt: skip
def test_a_credential_that_has_its_form_is_found_anywhere(value):
    assert value not in json.dumps(secrets.redacted({"note": f"use {value} here", value: 1}))


@pytest.mark.parametrize("setting", [
    {"eos_token": "</s>"}, {"max_tokens": 5}, {"sequence_len": 8}, {"key_value_heads": 1}, {"hub_token": None},
    {"hf_use_auth_token": True}, {"path": "s3://bucket/a@b"}, {"path": "org/name@main"}, {"lora_target_modules": ["k"]},
    {"url": "https://example.org/a?split=train#x"}, {"image_token": "<image>"}, {"tokenizer_config": "./tokenizer"},
])  # fmt: skip
def test_what_is_no_credential_is_told(setting):
    assert secrets.redacted(setting) == setting
