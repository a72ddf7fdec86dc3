"""The package as a wheel, for tests of what is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def build(directory: Path) -> Path:
    """The wheel, built from a copy: a build leaves directories beside the source, and takes in what an earlier one left."""
    source = directory / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("eeve_axolotl", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # No isolation: setuptools is here, and the network may not be.
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", directory, source], check=True, capture_output=True, timeout=300)
    (path,) = directory.glob("*.whl")
    return path
