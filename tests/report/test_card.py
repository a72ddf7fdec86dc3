"""The model card: what is in it, what is not, and that no card of someone's own is lost."""

from __future__ import annotations

import json
import re
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
        "language": ["ko", "en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["axolotl", "eeve", "vocabulary-expansion"],
    }
    content = text(complete)
    assert "\n# license: yours to choose" in content.split("---")[1]
    assert "\n# SOLAR-10.7B-v1.0 with Korean\n" in content
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
    assert front_matter(output)["language"] == ["ko", "en"]  # of the texts that are to be evaluated
    assert "# SOLAR-10.7B-v1.0 with an extended vocabulary" in text(output)
    for heading in ("Use", "Tokens", "Stages", "Data", "Figures", "Licence", "Versions"):
        assert f"## {heading}" not in text(output)


@pytest.mark.parametrize("base", ["./outputs/demo/base", "/somewhere/of/mine/base", "outputs/demo/base"])
def test_a_local_base_model_is_no_name_on_the_hub(tmp_path, base):
    output = make(tmp_path, done=1, evaluated=(), base_model=base)
    report.write(output)
    assert "base_model" not in front_matter(output)
    assert "# base_model: trained from a local directory" in text(output)
    assert "/somewhere" not in text(output)
    assert "# A language model with Korean\n" in text(output)


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


def test_it_shows_how_to_use_it_with_code_that_is_python(complete):
    (code,) = re.findall(r"(?s)```python\n(.*?)```", text(complete))
    compile(code, "card", "exec")
    assert 'name = "./merged"' in code and 'tokenizer("옛날에"' in code


def test_a_prompt_cannot_leave_its_string(tmp_path):
    output = make(tmp_path)
    for path in (output / "evaluation").glob("*.json"):
        figures = json.loads(path.read_text())
        figures["samples"] = [{"prompt": 'a"); import os\n("', "text": "b"}]
        path.write_text(json.dumps(figures))
    report.write(output)
    (code,) = re.findall(r"(?s)```python\n(.*?)```", text(output))
    compile(code, "card", "exec")
    assert "\nimport os" not in code and code.count("import") == 2


def test_limits_say_what_was_kept_and_what_it_is_not(complete):
    limits = text(complete).split("## Limits")[1].split("##")[0]
    assert "not tuned to follow instructions" in limits
    assert "Of the base model's English, stage 7 keeps 100.0%" in limits


@pytest.mark.parametrize(
    "front, said",
    [
        ("license: apache-2.0", {"license": "apache-2.0"}),
        ("license: other\nlicense_name: some-terms", {"license": "other", "license_name": "some-terms"}),
        ("tags: [a]", {}),
        ("license: [", {}),
    ],
)
def test_the_licence_is_the_bases_where_its_card_is_at_hand(tmp_path, front, said):
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text(f"---\n{front}\n---\n# A base\n")
    output = make(tmp_path, base_model=str(base))
    report.write(output)
    found = front_matter(output)
    assert {key: found[key] for key in found if key.startswith("license")} == said
    assert ("## Licence" in text(output)) == bool(said)
    assert ("# license: yours to choose" in text(output)) != bool(said)


def test_the_rates_of_one_matrix_stand_beside_the_stages(tmp_path):
    output = make(tmp_path)
    place = output / "joint/stage3/eeve_stage.json"
    record = json.loads(place.read_text())
    rates = {"others": 3e-4, "input_embeddings": 3e-3, "output_embeddings": 1e-5}
    place.write_text(json.dumps({**record, "learning_rates": rates}))
    report.write(output)
    shown = [row[4] for row in table(text(output), "stage", "trained")]
    assert shown[1:4] == ["4e-05", "0.0003 (input 0.003, output 1e-05)", "4e-05"]
