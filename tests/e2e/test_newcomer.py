"""A newcomer's way: an installed package, a base, a folder of text; `init`, `run`, and a model that answers."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from eeve_axolotl.files import read_json
from tests.conftest import tiny_llama
from tests.corpus.conftest import Maker
from tests.e2e.commands import Server
from tests.faults.small_chain import _tokenizer as small_tokenizer
from tests.wheels import build

pytestmark = pytest.mark.e2e

VERSION = "0.0.0+newcomer"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A server whose package is the wheel, which can be told from this tree by its version."""
    directory = tmp_path_factory.mktemp("wheel")
    zipfile.ZipFile(build(directory)).extractall(directory / "installed")
    (directory / "installed/eeve_axolotl/version.py").write_text(f'__version__ = "{VERSION}"\n')
    server = Server().start(directory / "installed")
    yield server
    server.stop()


def write_texts(directory: Path) -> None:
    maker = Maker(seed=3, nouns=40)
    for folder, language, documents in (("korean", "ko", 60), ("english", "en", 40)):
        (directory / folder).mkdir()
        lines = (
            json.dumps({"text": maker.document(language)}, ensure_ascii=False) + "\n"
            for _ in range(documents)
        )
        (directory / folder / "text.jsonl").write_text("".join(lines), encoding="utf-8")


def test_no_file_is_edited_between_raw_text_and_an_answer(installed, tmp_path):
    size = small_tokenizer(tmp_path / "base")
    tiny_llama(size, hidden_size=16, num_hidden_layers=1).save_pretrained(tmp_path / "base")
    write_texts(tmp_path)
    made = installed.run(
        ["eeve", "init", "mine", "--base", "base", "--corpus", "korean", "--language", "ko", "--keep", "English=english",
         "--gpus", "0", "--steps", "1", "--sequence-len", "64", "--global-batch", "2", "--new-tokens", "40"], tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-3000:]
    where, command = re.fullmatch(r"cd (\S+) && axolotl (.+)", made.stdout.splitlines()[-1]).groups()
    project = tmp_path / where
    done = installed.run(command.split(), project)
    assert done.returncode == 0, done.stdout[-3000:]

    assert read_json(project / "corpus/eeve_corpus.json")["version"] == VERSION
    figures = {
        path.stem: read_json(path)["texts"]
        for path in (project / "outputs/pipeline/evaluation").glob("*.json")
    }
    assert {"base", "extended", "stage5", "stage6", "stage7"} == figures.keys()
    for name in ("base", "stage7"):
        assert figures[name].keys() == {"Korean", "English"}
    shorter = figures["stage7"]["Korean"]["tokens_per_character"]
    assert shorter < figures["base"]["Korean"]["tokens_per_character"] / 2
    assert (project / "outputs/pipeline/report/report.html").is_file()
    assert answers(project / "outputs/stage7/merged", "안녕")

    again = installed.run(command.split(), project)
    assert again.returncode == 0 and again.stdout.count("(done before)") == 12, again.stdout[-3000:]


def answers(model: Path, prompt: str) -> str:
    """What plain transformers makes of the prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    ids = tokenizer(prompt, return_tensors="pt")
    written = loaded.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0]
    assert len(written) > ids["input_ids"].shape[1]
    return tokenizer.decode(written)
