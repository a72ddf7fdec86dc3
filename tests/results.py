"""What a run of the tests found, and with which versions, into a file: `pytest -p tests.results --results FILE`.

`tools/versions_table.py` puts such files into docs/versions.md. Beside pytest-xdist only the process that collects
the results writes.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("axolotl", "transformers", "torch")
COUNTED = ("passed", "failed", "error", "skipped")


def pytest_addoption(parser) -> None:
    parser.addoption("--results", metavar="FILE", help="write counts and versions there, as JSON")


def pytest_terminal_summary(terminalreporter, config) -> None:
    target = config.getoption("results")
    if not target or hasattr(config, "workerinput"):  # a worker of pytest-xdist sums up its own tests
        return
    counts = {each: len(terminalreporter.stats.get(each, [])) for each in COUNTED}
    found = {"python": platform.python_version(), "system": system(), "commit": commit()}
    found |= {each: installed(each) for each in PACKAGES}
    found |= {"date": date.today().isoformat(), "tests": selection(config), **counts}
    unfinished = Path(f"{target}.unfinished")
    unfinished.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, target)


def selection(config) -> str:
    """Which tests were asked for: all, or what pytest was given, in its words."""
    given = [] if config.args_source.name == "TESTPATHS" else [place.rstrip("/") for place in config.args]
    marks = f"-m '{config.option.markexpr}'" if config.option.markexpr else ""
    words = f"-k '{config.option.keyword}'" if config.option.keyword else ""
    return " ".join(filter(None, [*given, marks, words])) or "all"


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def system() -> str:
    """The system's name and version, such as "Debian GNU/Linux 13"."""
    release = platform.freedesktop_os_release()
    return f"{release['NAME']} {release.get('VERSION_ID', '')}".strip()


def commit() -> str:
    """The commit that was tested, with a plus where files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
