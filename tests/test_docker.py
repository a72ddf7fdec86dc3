"""The image's files, as far as they can be held to the repository without an engine."""

import re
import shlex

import pytest
import yaml
from packaging.requirements import Requirement

from tests.conftest import ROOT

tomllib = pytest.importorskip("tomllib")  # Python 3.11

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
    if line
]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def test_the_image_is_a_release_that_the_package_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (axolotl,) = [each for each in map(Requirement, project["dependencies"]) if each.name == "axolotl"]
    versions = dict(each.split("=", 1) for each in arguments("ARG") if "=" in each)
    assert versions["AXOLOTL"] in axolotl.specifier
    assert arguments("FROM") == ["axolotlai/axolotl:${AXOLOTL}-${VARIANT}"]
    python = re.match(r"py([\d.]+)-cu\d+-[\d.]+$", versions["VARIANT"])[1]
    assert Requirement(f"x{project['requires-python']}").specifier.contains(python)


def test_what_is_copied_exists_and_is_what_the_build_needs():
    copied = [source for each in arguments("COPY") for source in shlex.split(each)[:-1]]
    for source in copied:
        assert (ROOT / source).exists(), source
    for needed in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "eeve_axolotl",
        "examples",
    ):
        assert needed in copied
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not set(copied) & set(ignored)


def test_the_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = re.findall(r'"\.\[([\w,-]+)\]"', DOCKERFILE)
    assert installed and all(name in extras for names in installed for name in names.split(","))


def test_it_does_not_run_as_root_and_holds_no_secret():
    assert arguments("USER")[-1] == "1000"
    settings = " ".join(arguments("ENV") + arguments("ARG"))
    assert not re.search(r"(?i)token|password|secret|api_key", settings)
    compose = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text(encoding="utf-8"))
    (service,) = compose["services"].values()
    assert service["environment"] == {"HF_TOKEN": None}  # passed on, not written down
    assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == (
        ROOT / "docker" / "Dockerfile"
    )
    volumes = {each.rpartition(":")[2] for each in service["volumes"]}
    assert volumes == set(yaml.safe_load(arguments("VOLUME")[0]))


def test_the_healthcheck_passes_here_and_would_fail_without_the_plugin():
    import subprocess
    import sys

    command = yaml.safe_load(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    code = command[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    broken = code.replace("eeve_axolotl.EEVEPlugin", "no_such_package.Plugin")
    assert subprocess.run([sys.executable, "-c", broken], cwd=ROOT, capture_output=True).returncode != 0
