"""Text that is replaced under its own name: what `axolotl eeve run` built and trained of it is not taken for done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import SMALL, tiny_llama
from tests.e2e.helpers import axolotl, write_recipe

pytestmark = pytest.mark.e2e

BEFORE, AFTER = "안녕, 학교는 지금 조용하다. ", "학교, 안녕은 지금 조용하다. "
PLACES = ("words.jsonl", "train/a.jsonl", "held.jsonl")


def write(path: Path, sentence: str) -> None:
    """Documents of one size, whichever sentence they repeat, written at one time."""
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps({"text": sentence * 20 + f"{number:02d}"}) + "\n" for number in range(12))
    path.write_text("".join(lines), encoding="utf-8")
    os.utime(path, (1e9, 1e9))


def ground(directory: Path, base: Path, **texts: str) -> Path:
    """A base, its texts, and a chain that builds a tokenizer and trains one stage."""
    import datasets

    shutil.copytree(base, directory / "base")
    tiny_llama(SMALL, hidden_size=16).save_pretrained(directory / "base")
    for place in PLACES:
        write(directory / place, texts.get(place, BEFORE))
    datasets.Dataset.from_dict({"text": [BEFORE] * 3}).save_to_disk(directory / "saved")
    tokenizer = {
        "base": "base", "output": "tokenizer", "corpus": [{"path": "words.jsonl"}], "new_tokens": 4,
        "intermediate_vocab_size": 100, "min_count": 1,
    }  # fmt: skip
    (directory / "tokenizer.yml").write_text(yaml.safe_dump(tokenizer))
    named = [{"path": "./train", "type": "completion"}, {"path": "./saved", "type": "completion"}]
    held = [{"path": "./held.jsonl", "ds_type": "json", "type": "completion", "split": "train"}]
    write_recipe(directory, 3, "./base", datasets=named, test_datasets=held)
    chain = {"output": "pipeline", "tokenizer": "tokenizer.yml", "runs": ["stage3.yml"], "launcher": "python"}
    (directory / "pipeline.yml").write_text(yaml.safe_dump(chain))
    return directory


def run(directory: Path, *arguments: str, status: int = 0) -> str:
    done = axolotl(directory, "eeve", "run", "pipeline.yml", *arguments)
    assert done.returncode == status and "Traceback" not in done.stdout, done.stdout[-3000:]
    return done.stdout.strip().splitlines()[-1]


def weights(directory: Path) -> dict:
    return json.loads((directory / "stage3/eeve_stage.json").read_text())["weights"]


def test_a_replaced_text_is_named_and_trained_on_and_axolotls_cache_serves_nothing_old(
    tmp_path, small_tokenizer_directory
):
    here = ground(tmp_path / "here", small_tokenizer_directory)
    run(here)
    old = weights(here)
    assert "done before" in run(here) and weights(here) == old
    write(here / "held.jsonl", AFTER)
    assert "stage3.yml is done, but since then held.jsonl has another content" in run(here, status=1)
    write(here / "held.jsonl", BEFORE)
    write(here / "train/a.jsonl", AFTER)
    assert "stage3.yml is done, but since then train/a.jsonl has another content" in run(here, status=1)
    assert "--from 3" in run(here, "--dry-run", status=1)
    run(here, "--from", "3")
    assert weights(here) != old
    afresh = ground(tmp_path / "afresh", small_tokenizer_directory, **{"train/a.jsonl": AFTER})
    shutil.copytree(here / "tokenizer", afresh / "tokenizer")
    run(afresh)
    assert weights(afresh) == weights(here)

    write(here / "words.jsonl", "지금, 안녕은 학교 조용하다. ")
    assert "tokenizer is built, but since then in tokenizer.yml words.jsonl has another content" in run(
        here, status=1
    )
    alone = axolotl(here, "eeve", "tokenizer", "tokenizer.yml")
    assert alone.returncode == 1 and "since it was built words.jsonl has another content" in alone.stdout
