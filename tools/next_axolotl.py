"""What another version of Axolotl breaks here: `python tools/next_axolotl.py VERSION`.

Builds the environment that `make test AXOLOTL=VERSION` uses, unless it is there; pyproject.toml need not allow the
version. Then runs the contract tests in it: which hooks Axolotl calls, in which order and with what; that the trainer's
methods that we override exist with their parameters; that the config keys that we set exist. Prints what broke, a
sentence each, and ends with status 1 if something did. Needs nothing but Python's own library.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = ("tests/test_contract.py", "tests/e2e/test_hooks.py")


def axolotl_in(environment: Path) -> str:
    """The version of Axolotl in a virtual environment; empty without one."""
    python = environment / "bin" / "python"
    if not python.exists():
        return ""
    ask = "from importlib.metadata import version; print(version('axolotl'))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False).stdout.strip()


def build(version: str, environment: Path) -> None:
    """Make the environment as `make test AXOLOTL=VERSION` does, by tools/install_axolotl.py."""
    ready = environment / "ready"
    ready.unlink(missing_ok=True)  # of another version with the same first two numbers
    subprocess.run(["make", ready.relative_to(ROOT), f"AXOLOTL={version}"], cwd=ROOT, check=True)


def run_contract(environment: Path, junit: Path) -> str:
    """Run the contract tests, their outcome into the file `junit`; what pytest printed."""
    command = [
        environment / "bin" / "python",
        "-m",
        "pytest",
        "--quiet",
        "-p",
        "no:cacheprovider",
        f"--junitxml={junit}",
        *CONTRACT,
    ]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.stdout


def sentence(case: ElementTree.Element, broken: ElementTree.Element) -> str:
    """What a test found broken: its name as words, and what it said."""
    name, _, parameter = case.get("name", "").removeprefix("test_").partition("[")
    said = [line[1:].strip() for line in (broken.text or "").splitlines() if line.startswith("E ")]
    of_file = broken.get("message") == "collection failure"  # it could not be imported: the cause comes last
    why = (said or [broken.get("message") or ""])[-1 if of_file else 0].removeprefix("AssertionError: ")
    if of_file:
        return f"NOT SO: {case.get('name', '').rpartition('.')[2]} can be imported. {why}"
    if broken.tag == "error":  # what several tests need, before any of them
        return f"NOT SO: the tests can begin. {why}"
    of = f" ({parameter.rstrip(']')})" if parameter else ""
    return f"NOT SO: {name.replace('_', ' ')}{of}. {why}"


def broken(junit: Path) -> tuple[int, list[str]]:
    """How many tests ran, and of each that failed a sentence, each sentence once."""
    cases = list(ElementTree.parse(junit).iter("testcase"))
    found = [(case, each) for case in cases for each in case if each.tag in ("failure", "error")]
    return len(cases), list(dict.fromkeys(sentence(*each) for each in found))


def main(arguments: list[str]) -> int:
    """Build, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("version", help="of Axolotl, such as 0.22.0")
    parser.add_argument(
        "--environment", type=Path, help="a virtual environment that has it; nothing is installed then"
    )
    given = parser.parse_args(arguments)
    environment = given.environment or ROOT / f".venv-{given.version.rpartition('.')[0]}"
    if given.environment is None and axolotl_in(environment) != given.version:
        build(given.version, environment)
    here = axolotl_in(environment)
    if here != given.version:
        print(f"{environment} has Axolotl {here or '(none)'}, not {given.version}")
        return 2
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        junit = Path(directory) / "contract.xml"
        printed = run_contract(environment, junit)
        if not junit.exists():
            print(f"The contract tests did not run:\n{printed}")
            return 2
        ran, sentences = broken(junit)
    for each in sentences:
        print(each)
    count = len(sentences)
    verdict = "nothing broke" if not count else "1 thing broke" if count == 1 else f"{count} things broke"
    print(f"Axolotl {here}: {verdict}; {ran} tests in {time.monotonic() - begun:.0f} s")
    return 1 if sentences or not ran else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"the environment could not be made (status {error.returncode}): see what was said above")
