"""The packaged recipes, and copying them to where they can be changed. Works without the network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from eeve_axolotl.errors import EEVEError

_TEXT = (".yml", ".yaml", ".json", ".py")
_EXAMPLES = re.compile(r"(?<![\w./-])examples/")

SOLAR = "solar"  # its recipes lie at the top of examples/, every other model's in a folder of its own


def directory() -> Path:
    """Where the recipes are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "examples", package.parent / "examples") if path.is_dir())


def models() -> list[str]:
    """The models that there are recipes for, by their folders' names; "demo" is one."""
    folders = (path.name for path in directory().iterdir() if path.is_dir() and path.name != "__pycache__")
    return [SOLAR, *sorted(folders)]


def files(model: str | None = None) -> list[Path]:
    """The files of one model, or all, as paths relative to `directory()`.

    Raises EEVEError for a model that has no recipes.
    """
    if model is not None and model not in models():
        raise EEVEError(f"there are no recipes for {model}; give one of {', '.join(models())}")
    every = (path.relative_to(directory()) for path in sorted(directory().rglob("*")) if path.is_file())
    return [
        path
        for path in every
        if "__pycache__" not in path.parts
        and (model is None or model == (path.parts[0] if len(path.parts) > 1 else SOLAR))
    ]


def find(name: str) -> Path:
    """One recipe by its path below `directory()`, `examples/` before it or not. Raises EEVEError if there is none."""
    path = Path(name.removeprefix("./").removeprefix("examples/"))
    if path not in files():
        raise EEVEError(f"there is no recipe {name}; `axolotl eeve recipes --list` shows all")
    return path


def copy(
    target: str | Path, model: str | None = None, overwrite: bool = False, only: str | None = None
) -> list[Path]:
    """Copy the recipes to `target`, keeping their folders, with the paths of other recipes as they are there.

    Returns what was written. Raises EEVEError, before it writes anything, if a file is there already and `overwrite` is
    not given.
    """
    target = Path(target)
    wanted = {target / path: directory() / path for path in ([find(only)] if only else files(model))}
    there = [str(path) for path in wanted if path.exists()]
    if there and not overwrite:
        shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise EEVEError(
            f"nothing was copied, for these exist already: {shown}; give another directory, or --overwrite"
        )
    for path, source in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix in _TEXT:
            path.write_text(_moved(source.read_text(encoding="utf-8"), target), encoding="utf-8")
        else:
            shutil.copyfile(source, path)
    return list(wanted)


def _moved(text: str, target: Path) -> str:
    """`text` with the recipes that it names in `target`: they stand as they are typed in the directory above `examples`."""
    return _EXAMPLES.sub(lambda found: f"{target.as_posix()}/", text)
