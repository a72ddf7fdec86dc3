"""`axolotl eeve recipes`: every recipe comes along in a wheel, and nothing of the user's is overwritten unasked."""

import subprocess
import sys
import zipfile

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


def test_a_wheel_holds_every_recipe_and_finds_it(tmp_path):
    """Built from a copy, so that build folders stay out of the checkout; used from the wheel's own files."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    names = [name for name in tracked if not name.startswith("tests/")]
    if not names:
        pytest.skip("not a git checkout")
    for name in names:
        copy = tmp_path / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet"]
    subprocess.run([*build, "-w", tmp_path, tmp_path / "source"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = "from eeve_axolotl import recipes; print(*recipes.copy('copied'), sep='\\n')"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(printed.split()) == {
        f"copied/{name.removeprefix('examples/')}" for name in names if name.startswith("examples/")
    }
