"""What a user can get wrong, as the user meets it: `axolotl train` stops early, with one sentence and no traceback."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from transformers.utils import is_flash_attn_2_available

from eeve_axolotl.pipeline import launch
from tests.conftest import extended, tiny_llama
from tests.e2e.helpers import axolotl, write_recipe

pytestmark = pytest.mark.e2e

BASE = 32000

# Python imports a `sitecustomize` on its path at every start: here it makes the package a missing one.
WITHOUT_THE_PACKAGE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "eeve_axolotl":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def bases(tmp_path_factory, base_tokenizer_directory, base_tokenizer) -> Path:
    """A directory with `base`, `tied` (the same with one matrix), `tokenizer` (extended) and a text."""
    directory = tmp_path_factory.mktemp("bases")
    for name, tied in (("base", False), ("tied", True)):
        shutil.copytree(base_tokenizer_directory, directory / name)
        tiny_llama(BASE, hidden_size=8, tie_word_embeddings=tied).save_pretrained(directory / name)
    extended(base_tokenizer, ["안녕", "▁학교", "▁지금"]).save_pretrained(directory / "tokenizer")
    (directory / "text.jsonl").write_text('{"text": "안녕, 학교. 지금."}\n' * 8, encoding="utf-8")
    return directory


def failure(directory: Path, recipe: str, launcher: str = "python", **options) -> str:
    """The output of an `axolotl train` that must fail, and leave no weights and no record."""
    done = axolotl(directory, "train", recipe, "--launcher", launcher, **options)
    assert done.returncode != 0, done.stdout[-2000:]
    assert not [*directory.glob("stage*/*.safetensors"), *directory.glob("stage*/eeve_*")]
    return done.stdout


def sentence(output: str) -> str:
    """The one line that is ours, which must be the last; no traceback before it."""
    assert "Traceback" not in output, output[-2000:]
    last = output.rstrip().splitlines()[-1]
    assert output.count("eeve_axolotl: ") == 1 and last.startswith("eeve_axolotl: "), output[-2000:]
    return last


def test_a_recipe_does_not_run_where_the_package_is_missing(bases, tmp_path):
    """Axolotl by itself would skip the plugin with a line in its log and train every parameter."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_THE_PACKAGE)
    output = failure(bases, write_recipe(bases, 1, "./base"), first_on_path=tmp_path)
    # Axolotl's own words: nothing of ours can speak here. 0.19 stops at the trainer's class, 0.21 at the plugin.
    assert "No module named 'eeve_axolotl'" in output.rstrip().splitlines()[-1]
    assert "train_runtime" not in output


# How a launcher begins to tell of a process that has failed, in words of its own.
LAUNCHERS_REPORT = {
    "python": None,
    "accelerate": 'Traceback (most recent call last):\n  File "{bin}/accelerate"',
    "torchrun": "torch/distributed/elastic/multiprocessing/api.py",
}


@pytest.mark.both_versions
@pytest.mark.parametrize("launcher", LAUNCHERS_REPORT)
def test_a_tokenizer_that_is_not_extended_is_refused_with_each_launcher(bases, launcher):
    """After the model is loaded, where a run has the most to take down; what the launcher adds is its own."""
    output = failure(bases, write_recipe(bases, 1, "./base", tokenizer_config="./base"), launcher)
    mark = LAUNCHERS_REPORT[launcher]
    said, found, report = (
        output.partition(mark.format(bin=Path(sys.executable).parent)) if mark else (output, "", "")
    )
    assert bool(found) == bool(mark), output[-3000:]
    if launcher == "torchrun":  # the mark is inside a line of its log
        said = said.rpartition("\n")[0]
    assert "there are no new rows to train: the tokenizer has 32,000 tokens and the model 32,000" in sentence(
        said
    )
    assert "set tokenizer_config to an extended tokenizer (`axolotl eeve tokenizer` builds" in sentence(said)
    assert "eeve_axolotl/" not in report  # no frame of ours
    (bases / "log").write_text(output)
    assert launch.why(bases / "log") == sentence(said)  # which is all that a chain shows


def test_a_stage_before_its_predecessor_names_what_to_run_first(bases):
    write_recipe(bases, 2, "./stage1")
    said = sentence(failure(bases, write_recipe(bases, 3, "./stage2")))
    assert "base_model ./stage2 does not exist" in said
    assert "run `axolotl train stage2.yml` first" in said


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed")
def test_flash_attention_that_is_absent_ends_the_run_before_the_model_is_loaded(bases):
    recipe = write_recipe(bases, 1, "./base", attn_implementation="flash_attention_2")
    said = sentence(failure(bases, recipe))
    assert "`attn_implementation: flash_attention_2` is asked for and flash-attn is not installed" in said


def test_tied_embeddings_are_refused_with_the_stages_that_make_sense(bases):
    said = sentence(failure(bases, write_recipe(bases, 1, "./tied")))
    assert "ties them into one matrix" in said
    assert "use stages 3, 4 (which then trains all rows of both), 6 and 7" in said
