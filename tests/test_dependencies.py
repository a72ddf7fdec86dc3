"""What the package imports is declared in pyproject.toml, and what is declared is imported."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.imports import PACKAGE, distribution, imports

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_IMPORTED = {
    "koreanize-matplotlib",  # its font is read, its code is not run
}


def required(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


ALWAYS = required(PROJECT["dependencies"])
# What a person may add: the extras that are not for those who work on the package.
OPTIONAL = {
    name
    for extra, lines in PROJECT["optional-dependencies"].items()
    if extra not in ("test", "lint", "dev")
    for name in required(lines)
} - ALWAYS.keys()

OTHERS = [each for each in imports() if each.name.partition(".")[0] != PACKAGE]


def test_what_is_imported_is_declared():
    declared = ALWAYS.keys() | OPTIONAL
    assert not {
        f"{each.by} imports {each.name}" for each in OTHERS if distribution(each.name) not in declared
    }


def test_what_is_declared_is_imported():
    assert not ALWAYS.keys() - {distribution(each.name) for each in OTHERS} - NOT_IMPORTED


def test_what_only_an_extra_brings_is_imported_where_it_is_used():
    """The package and its commands start without extras; the rooms of `corpus/` need the extra of that name."""
    early = {each.by for each in OTHERS if each.at_top and distribution(each.name) in OPTIONAL}
    assert not {module for module in early if not module.startswith(f"{PACKAGE}.corpus.")}


def test_the_extra_for_flash_attention_brings_it_whichever_axolotl_is_there():
    """An extra that Axolotl does not have is left out by pip, with a warning only."""
    assert required(PROJECT["optional-dependencies"]["flash-attn"]).keys() == {"flash-attn"}


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_every_dependency_has_a_lower_bound_that_this_environment_satisfies(name):
    requirement = ALWAYS[name]
    assert any(each.operator in (">=", "==", "~=") for each in requirement.specifier)
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.fail(f"{name} is declared and not installed")
    assert requirement.specifier.contains(installed, prereleases=True)


def test_one_version_of_ruff_formats_here_and_before_a_commit():
    (bound,) = [line for line in PROJECT["optional-dependencies"]["lint"] if line.startswith("ruff")]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"ruff-pre-commit\n\s+rev: v([\d.]+)", hooks)
    assert Requirement(bound).specifier.contains(pinned)


def test_beside_another_axolotl_all_that_the_tests_need_is_installed():
    from tools.install_axolotl import requirements

    asked = [Requirement(line).name for line in requirements()]
    assert {"pytest", "ruff", "datatrove", "gguf", "pydantic"} <= {*asked}
    assert not {"eeve-axolotl", "axolotl"} & {*asked}
