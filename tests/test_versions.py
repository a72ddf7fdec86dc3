"""docs/versions.md: its table is what runs of the tests wrote, and names every version that we say is tested."""

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from eeve_axolotl.axolotl_versions import TESTED
from tests.conftest import ROOT

RUN = {
    "python": "3.13.5", "system": "Debian GNU/Linux 13", "commit": "abc", "axolotl": "0.21.0", "transformers": "5",
    "torch": "2", "date": "2026-01-01", "tests": "all", "passed": 3, "failed": 1, "error": 1, "skipped": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("versions_table", ROOT / "tools" / "versions_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_made_of_the_runs_that_are_kept_and_every_tested_version_has_one(tool):
    runs = json.loads((ROOT / "docs/versions.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/versions.md").read_text(encoding="utf-8")
    assert tool.with_table(page, runs) == page
    assert {run["axolotl"] for run in runs} == set(TESTED)


def test_a_newer_run_takes_the_place_of_one_of_its_kind_alone(tool, tmp_path):
    (tmp_path / "versions.md").write_text(f"Before.\n{tool.BEGIN}\nold\n{tool.END}\nAfter.\n")
    others = [RUN | {"python": "3.12.9"}, RUN | {"axolotl": "0.19.0"}, RUN | {"tests": "-m 'both_versions'"}]
    newer = RUN | {"python": "3.13.6", "passed": 5, "failed": 0, "error": 0}
    for number, run in enumerate([RUN, *others, newer]):
        (tmp_path / f"{number}.json").write_text(json.dumps(run))
    tool.main([str(tmp_path / f"{number}.json") for number in range(4)], tmp_path)
    tool.main([str(tmp_path / "4.json")], tmp_path)
    page = (tmp_path / "versions.md").read_text()
    assert page.startswith("Before.\n") and page.endswith("\nAfter.\n") and "old" not in page
    rows = [
        [each.strip() for each in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith("| 0")
    ]
    assert [(row[0], row[1], row[4], row[5], row[6]) for row in rows] == [
        ("0.19.0", "3.13.5", "all", "3", "2"),
        ("0.21.0", "3.12.9", "all", "3", "2"),
        ("0.21.0", "3.13.6", "all", "5", "0"),
        ("0.21.0", "3.13.5", "`-m 'both_versions'`", "3", "2"),
    ]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_run_writes_what_it_found(tmp_path, processes):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_passes_too(): pass\n"
        "def test_fails(): assert 0\n"
        "def test_skips(): pytest.skip('no')\n"
        "@pytest.fixture\n"
        "def broken(): assert 0\n"
        "def test_cannot_begin(broken): pass\n"
    )
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "pytest", "-p", "tests.results", "--results", str(file), "-n", processes]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    counted = {each: found[each] for each in ("passed", "failed", "error", "skipped")}
    assert counted == {"passed": 2, "failed": 1, "error": 1, "skipped": 1}
    assert (found["axolotl"], found["tests"]) == (version("axolotl"), str(tmp_path))


def test_a_worker_that_is_done_before_the_others_writes_nothing(tmp_path):
    file = tmp_path / "results.json"
    (tmp_path / "test_quick.py").write_text("def test_passes(): pass\n")
    (tmp_path / "test_slow.py").write_text(
        f"import pathlib, time\ndef test_waits():\n    time.sleep(4)\n    assert not pathlib.Path({str(file)!r}).exists()\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.results", "--results", str(file), "-n", "2"]
    done = subprocess.run(
        [*command, "--dist", "loadfile", f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["passed"] == 2
