"""The model card: what is in it, what is not, and that no card of someone's own is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eeve_axolotl import report
from eeve_axolotl.report import card
from tests.report.pipeline import make
from tests.report.test_report import table

AXOLOTLS = """---
library_name: transformers
---

<!-- This model card has been generated automatically according to the information the Trainer had access to. You
should probably proofread and complete it, then remove this comment. -->
"""


def text(output: Path) -> str:
    return (output / "report" / "README.md").read_text(encoding="utf-8")


def front_matter(output: Path) -> dict:
    return yaml.safe_load(text(output).split("---")[1])


def beside_weights(output: Path) -> Path:
    return output / "stage7" / "merged" / "README.md"


def test_it_says_what_the_files_say(complete):
    assert front_matter(complete) == {
        "base_model": "upstage/SOLAR-10.7B-v1.0",
        "language": ["ko"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["axolotl", "eeve", "vocabulary-expansion"],
    }
    content = text(complete)
    assert "\n# license: yours to choose" in content.split("---")[1]
    assert "\n# SOLAR-10.7B-v1.0 with 4 new tokens\n" in content
    assert "from 32,000 to 32,004" in content and "2.00 times fewer" in content
    assert "Built with Axolotl" in content and "eprint={2402.14714}" in content
    assert [row[0] for row in table(content, "stage", "trained")] == list("1234567")
    assert table(content, "model", "Korean, bits per byte")[-1][:3] == ["stage 7", "1.300", "1.000"]
    assert "`corpus_ko (train)`: stage 1, stage 2" in content


def test_what_is_not_known_is_left_out(unfinished):
    content = text(unfinished)
    assert [row[0] for row in table(content, "stage", "trained")] == list("1234")
    assert [row[0] for row in table(content, "model")] == ["base", "extended", "stage 1", "stage 3"]
    assert "Not trained yet: stage 5, 6, 7." in content


def test_with_nothing_but_a_plan_it_claims_nothing(tmp_path):
    output = make(tmp_path, done=0, evaluated=())
    (output / "tokenizer" / "eeve_tokenizer.json").unlink()
    report.write(output)
    assert "language" not in front_matter(output)
    for heading in ("Tokens", "Stages", "Data", "Figures", "Versions"):
        assert f"## {heading}" not in text(output)


@pytest.mark.parametrize("base", ["./outputs/demo/base", "/somewhere/of/mine/base", "outputs/demo/base"])
def test_a_local_base_model_is_no_name_on_the_hub(tmp_path, base):
    output = make(tmp_path, done=1, evaluated=(), base_model=base)
    report.write(output)
    assert "base_model" not in front_matter(output)
    assert "# base_model: trained from a local directory" in text(output)
    assert "/somewhere" not in text(output)
    assert "# base with 4 new tokens" in text(output)


def test_absolute_paths_of_data_are_not_published(tmp_path):
    output = make(tmp_path, done=1, evaluated=())
    path = output / "joint" / "stage1" / "eeve_history.json"
    history = json.loads(path.read_text())
    history["settings"]["datasets"] = [{"path": "/home/someone/text.jsonl"}]
    path.write_text(json.dumps(history))
    report.write(output)
    assert "- `text.jsonl`: stage 1" in text(output) and "someone" not in text(output)


@pytest.mark.parametrize("there", [None, AXOLOTLS, f"---\n---\n{card.MARKER}\nan earlier one"])
def test_it_goes_beside_the_weights_in_place_of_a_generated_one(tmp_path, there):
    output = make(tmp_path, evaluated=())
    if there:
        beside_weights(output).write_text(there)
    assert report.write(output).card == f"card: {beside_weights(output)}"
    assert beside_weights(output).read_text() == text(output)


def test_a_card_of_ones_own_is_left_alone(tmp_path):
    output = make(tmp_path, evaluated=())
    beside_weights(output).write_text("# My model\n")
    assert "left alone" in report.write(output).card
    assert beside_weights(output).read_text() == "# My model\n"


def test_an_unfinished_pipeline_or_one_without_weights_gets_none(tmp_path):
    output = make(tmp_path / "unfinished", done=6, evaluated=())
    assert "stage7 is not done" in report.write(output).card
    output = make(tmp_path / "bare", evaluated=())
    (output / "stage7" / "merged" / "model.safetensors").unlink()
    assert "there are none" in report.write(output).card
    assert not beside_weights(output).exists()
