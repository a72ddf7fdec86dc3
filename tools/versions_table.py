"""Put what runs of the tests found into docs/versions.md: `python tools/versions_table.py FILE...`.

The files are those of `make test RESULTS=FILE` (tests/results.py writes them). docs/versions.json keeps one run of each
Axolotl, Python and choice of tests, the one that was given last, and the table is made of it. Needs nothing but Python's
own library.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- made by tools/versions_table.py -->", "<!-- end -->"
COLUMNS = (
    "Axolotl",
    "Python",
    "transformers",
    "torch",
    "tests",
    "passed",
    "failed",
    "skipped",
    "system",
    "date",
    "commit",
)

Run = dict[str, str | int]


def key(run: Run) -> tuple:
    """What a newer run replaces: Axolotl, Python's first two numbers, and the choice of tests."""
    numbers = [tuple(map(int, re.findall(r"\d+", str(run[each])))) for each in ("axolotl", "python")]
    return numbers[0], numbers[1][:2], run["tests"] != "all", run["tests"]


def merged(known: list[Run], new: list[Run]) -> list[Run]:
    """One run of each key, sorted."""
    runs = {key(run): run for run in [*known, *new]}
    return [runs[each] for each in sorted(runs)]


def table(runs: list[Run]) -> str:
    """The runs as a Markdown table; an error, which is a test that could not begin, counts as failed."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for run in runs:
        tests = "all" if run["tests"] == "all" else f"`{run['tests']}`"
        shown = run | {"tests": tests, "failed": int(run["failed"]) + int(run["error"])}
        lines.append("| " + " | ".join(str(shown[each.lower()]) for each in COLUMNS) + " |")
    return "\n".join(lines)


def with_table(page: str, runs: list[Run]) -> str:
    """The page with its table made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"the page has no place for the table: it begins with {BEGIN} and ends with {END}")
    return f"{before}{BEGIN}\n{table(runs)}\n{END}{after}"


def main(files: list[str], docs: Path = DOCS) -> None:
    """Read the files, write docs/versions.json and the table."""
    data, page = docs / "versions.json", docs / "versions.md"
    known = json.loads(data.read_text(encoding="utf-8")) if data.exists() else []
    runs = merged(known, [json.loads(Path(each).read_text(encoding="utf-8")) for each in files])
    contents = {
        data: json.dumps(runs, indent=2) + "\n",
        page: with_table(page.read_text(encoding="utf-8"), runs),
    }
    for path, content in contents.items():
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_text(content, encoding="utf-8")
        os.replace(unfinished, path)


if __name__ == "__main__":
    main(sys.argv[1:])
