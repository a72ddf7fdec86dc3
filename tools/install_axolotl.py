"""Install this package, to work on it, beside one version of Axolotl: `PYTHON tools/install_axolotl.py VERSION`.

Into the environment whose Python runs it. Axolotl comes first, by itself: whichever Python it asks for (0.21 runs on
3.11 and asks for 3.12), and whether or not pyproject.toml allows it. pip then brings what it and this package need.
On Python 3.13 a compiler and Python's headers are needed, for zstandard.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("test", "lint")


def requirements() -> list[str]:
    """What this package and its extras ask for, but for Axolotl."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    own = f"{project['name']}["  # an extra that names another
    for line in [each for each in lines if each.startswith(own)]:
        lines.remove(line)
        lines += [
            each for extra in line.removeprefix(own).rstrip("]").split(",") for each in extras[extra.strip()]
        ]
    return [line for line in lines if not line.startswith("axolotl>")]


def pinned(package: str) -> list[str]:
    """What the installed Axolotl asks for of `package`, in pip's words."""
    return [line for line in requires("axolotl") or [] if line.startswith(f"{package}==")]


def main(version: str) -> None:
    """Install everything; DeepSpeed where it builds."""

    def pip(*arguments: str, check: bool = True) -> bool:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *arguments,
        ]
        return subprocess.run(command, check=check).returncode == 0

    pip("--no-deps", "--ignore-requires-python", f"axolotl=={version}")
    if sys.version_info >= (3, 13):
        # Axolotl pins a zstandard without a wheel for 3.13. It builds there, but not with the cffi that its build asks for.
        pip("cffi>=1.17", "setuptools", "wheel")
        pip("--no-build-isolation", *pinned("zstandard"))
    pip(f"axolotl=={version}", *requirements())
    pip("--no-deps", "--editable", str(ROOT))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if not pip("--no-build-isolation", *project["optional-dependencies"]["deepspeed"], check=False):
        print("DeepSpeed was not installed: the tests of ZeRO will skip")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except subprocess.CalledProcessError as error:
        sys.exit(f"pip could not install it (status {error.returncode}): see what it said above")
