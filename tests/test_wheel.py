"""The wheel has what an installed package needs beside its code: recipes, measurements, templates, the mark of types."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from eeve_axolotl.version import __version__
from tests.conftest import ROOT
from tests.wheels import build


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(tmp_path_factory.mktemp("wheel")))


def files(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_it_has_every_file_of_the_package_and_every_recipe(wheel):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    recipes = {f"eeve_axolotl/examples/{name}" for name in files(ROOT / "examples")}
    assert packed == {f"eeve_axolotl/{name}" for name in files(ROOT / "eeve_axolotl")} | recipes
    assert "eeve_axolotl/py.typed" in packed


def test_a_wheel_holds_every_recipe_and_finds_it(wheel, tmp_path):
    """Used from the wheel's own files, away from the checkout."""
    wheel.extractall(tmp_path / "installed")
    code = "from eeve_axolotl import recipes; print(*recipes.copy('copied'), sep='\\n')"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(printed.split()) == {f"copied/{name}" for name in files(ROOT / "examples")}


def test_it_says_its_version_and_its_command(wheel):
    (directory,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(wheel.read(f"{directory}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("eeve-axolotl", __version__)
    entry_points = wheel.read(f"{directory}/entry_points.txt").decode()
    assert "[axolotl.cli_commands]\neeve = eeve_axolotl.cli:eeve" in entry_points
