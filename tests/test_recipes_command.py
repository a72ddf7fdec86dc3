"""`axolotl eeve recipes`: the packaged recipes are copied, and nothing of the user's is overwritten unasked."""

from pathlib import Path

import pytest
import yaml
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
        assert copied.read_text() == source.read_text().replace("examples/", f"{tmp_path}/mine/")
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
    assert yaml.safe_load(mine.read_text()) == yaml.safe_load((ROOT / "examples" / "stage3.yml").read_text())


@pytest.mark.parametrize("model", ["phi-2", "solar", "demo"])
def test_copies_name_each_other_where_they_are(tmp_path, monkeypatch, model):
    """Whatever a pipeline names is among what was copied, however the directory was named."""
    monkeypatch.chdir(tmp_path)
    recipes.copy("mine", model=model)
    place = Path("mine") if model == "solar" else Path("mine", model)
    pipeline = yaml.safe_load((place / "pipeline.yml").read_text())
    named = [pipeline["tokenizer"], pipeline["corpus"], *pipeline["runs"]]
    assert named and all(Path(each).is_file() for each in named)
    shown = "".join(path.read_text() for path in place.glob("*.yml"))
    assert "examples/" not in shown


def test_one_recipe_is_copied_alone(tmp_path):
    (copied,) = recipes.copy(tmp_path / "mine", only="phi-2/stage1.yml")
    assert copied == tmp_path / "mine/phi-2/stage1.yml"
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [copied]
    assert recipes.copy(tmp_path / "other", only="examples/stage6.yml") == [tmp_path / "other/stage6.yml"]
    with pytest.raises(EEVEError, match="there is no recipe stage9.yml"):
        recipes.copy(tmp_path / "mine", only="stage9.yml")


def test_what_there_is_is_listed_and_nothing_is_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(eeve, ["recipes", "--list"])
    assert result.output.split() == [str(path) for path in recipes.files()]
    only = CliRunner().invoke(eeve, ["recipes", "--list", "--model", "phi-2"]).output.split()
    assert only and all(name.startswith("phi-2/") for name in only)
    assert list(tmp_path.iterdir()) == []
