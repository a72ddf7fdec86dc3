"""What the documents name exists."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from eeve_axolotl.version import __version__
from tests.conftest import ROOT
from tools import keys

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*.md"), *ROOT.glob("benchmarks/*.md")]
)
# The changelog also names what is gone.
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def headings(path: Path) -> set[str]:
    """The anchors that a Markdown file's headings get."""
    found = re.findall(r"(?m)^#+ (.+)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    text = re.sub(r"(?s)```.*?```", "", document.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


@pytest.mark.parametrize("document", PRESENT, ids=name)
def test_paths_in_the_text_exist(document):
    """Paths in backticks, from the root: `tests/e2e`, `examples/demo/pipeline.yml`, with `*` and `?` for several."""
    text = document.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:eeve_axolotl|tests|docs|docker|benchmarks|examples)/[\w./*?-]*)`", text)
    assert not {path for path in paths if not list(ROOT.glob(path.rstrip("/")))}


@pytest.mark.parametrize("document", PRESENT, ids=name)
def test_make_targets_in_the_text_exist(document):
    targets = set(
        re.findall(r"(?m)^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    )
    targets = {target for line in targets for target in line.split()}
    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)", text) + re.findall(r"(?m)^make ([a-z-]+)", text)) <= targets


@pytest.mark.parametrize("document", PRESENT, ids=name)
def test_commands_in_the_text_exist(document):
    from eeve_axolotl.cli import eeve

    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"axolotl eeve ([a-z]+)\b", text)) <= eeve.commands.keys()


def test_every_test_that_frozen_rows_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "frozen_rows.md").read_text(encoding="utf-8")))
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", source, re.M))


def test_the_version_is_one():
    """In the package, in the citation, and at the head of the changelog's released or next version."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == __version__ and project["dynamic"] == ["version"]
    assert f"\n## [{__version__}]" in changelog


def test_the_changelog_keeps_the_form():
    """Keep a Changelog: versions newest first, Unreleased above them, and six kinds of change."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"(?m)^## (.+)$", changelog)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = set(re.findall(r"(?m)^### (.+)$", changelog))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_key_is_in_the_page_of_keys_as_the_schemas_have_it():
    assert keys.FILE.read_text(encoding="utf-8") == keys.text(), "make keys"
