"""`axolotl eeve recipes`: the packaged recipes are copied, and nothing of the user's is overwritten unasked."""

import pytest
from click.testing import CliRunner

from eeve_axolotl import recipes
from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from tests.conftest import ROOT


def test_copies_are_the_recipes_with_their_folders(tmp_path):
    result = CliRunner().invoke(eeve, ["recipes", str(tmp_path / "mine")])
    assert result.exit_code == 0, result.output
    for source in (ROOT / "examples").rglob("*.yml"):
        copied = tmp_path / "mine" / source.relative_to(ROOT / "examples")
        assert copied.read_bytes() == source.read_bytes()
        assert str(copied) in result.output


def test_one_models_recipes_can_be_asked_for(tmp_path):
    copied = recipes.copy(tmp_path, model="solar")
    assert {path.parent for path in copied} == {tmp_path}
    assert {path.name for path in copied} == {path.name for path in (ROOT / "examples").glob("*.yml")}
    with pytest.raises(EEVEError, match=r"no recipes for gpt; give one of solar, .*demo"):
        recipes.copy(tmp_path, model="gpt")


def test_a_file_of_the_users_stops_it_before_anything_is_written(tmp_path):
    mine = tmp_path / "stage3.yml"
    mine.write_text("mine: true\n")
    result = CliRunner().invoke(eeve, ["recipes", str(tmp_path), "--model", "solar"])
    assert result.exit_code == 1
    assert str(mine) in result.output and "--overwrite" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["stage3.yml"]
    assert mine.read_text() == "mine: true\n"
    result = CliRunner().invoke(eeve, ["recipes", str(tmp_path), "--model", "solar", "--overwrite"])
    assert result.exit_code == 0
    assert mine.read_bytes() == (ROOT / "examples" / "stage3.yml").read_bytes()
