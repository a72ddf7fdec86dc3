"""The Greek demo's recipes as they are, on few stories and one step a stage: another script, a byte-level base, a tie."""

import json
import shutil
import sys

import pytest

from eeve_axolotl.corpus.build import build as build_corpus
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.settings import read_yaml
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.conftest import ROOT
from tests.e2e.helpers import axolotl

sys.path.insert(0, str(ROOT / "examples" / "demo"))

import base_model
from stories import generate


@pytest.mark.e2e
def test_greek_is_learned_by_a_byte_level_base_with_tied_embeddings(tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    random, text = tmp_path / "outputs" / "greek" / "random", tmp_path / "outputs" / "greek" / "text"
    for directory in (random, text):
        directory.mkdir(parents=True)
    base_model.write_byte_level_tokenizer(random)
    base_model.write_qwens_shape(random)
    shutil.copytree(random, random.with_name("base"))
    stories = list(generate("el", seed=1, documents=600))
    english_stories = list(generate("en", seed=1, documents=300))
    for name, written in {"greek": stories, "english": english_stories}.items():
        lines = "".join(json.dumps({"text": story}) + "\n" for story in written)
        (text / f"{name}.jsonl").write_text(lines, encoding="utf-8")

    settings = read_yaml("examples/demo/greek/tokenizer.yml", TokenizerSettings)
    build(settings.model_copy(update={"min_count": 5, "new_tokens": 200}))
    before, after = AutoTokenizer.from_pretrained(random), AutoTokenizer.from_pretrained(settings.output)
    greek, english = stories[0], english_stories[0]
    assert len(before(greek).input_ids) > 2 * len(after(greek).input_ids)
    assert before(english).input_ids == after(english).input_ids
    assert after.decode(after(greek).input_ids) == greek

    build_corpus(read_yaml("examples/demo/greek/corpus.yml", CorpusSettings))
    arguments = ["train", "examples/demo/greek/stages1to5.yml", "--launcher", "python", "--max-steps", "1"]
    done = axolotl(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    records = [
        json.loads(path.read_text())
        for path in sorted(tmp_path.glob("outputs/greek/stage5/**/eeve_stage.json"))
    ]
    assert {record["stage"] for record in records} == {"1", "2", "3", "4", "5"}
    assert not any(record["moved"] for record in records)
