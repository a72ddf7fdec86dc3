"""Reading a YAML file of ours into a pydantic model, with errors for the person at the keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from eeve_axolotl.errors import EEVEError


class Settings(BaseModel):
    """Base of every block and file of ours: an unknown key is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True)


S = TypeVar("S", bound=BaseModel)


def explain(error: ValidationError, where: str) -> str:
    """One sentence per problem: the key's path, what is wrong, and for an unknown key those known."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such key; remove it or correct its spelling"
        lines.append(f"{key}: {message}" if key else message)
    return f"{where}: " + "; ".join(lines)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The keys of the YAML file `path`.

    Raises EEVEError naming the file when it is missing, not YAML, or not a mapping.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EEVEError(f"{path} does not exist; give the path of a YAML file") from None
    except OSError as error:
        raise EEVEError(f"{path} cannot be read ({error.strerror}); give the path of a YAML file") from None
    except RecursionError:
        raise EEVEError(f"{path} is nested too deeply to be read; give a YAML file of keys") from None
    except (yaml.YAMLError, ValueError) as error:
        raise EEVEError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise EEVEError(f"{path} is empty or not a mapping of keys; see examples/ for its shape")
    return raw


def read_yaml(path: str | Path, model: type[S]) -> S:
    """Read the YAML file `path` into `model`.

    Raises EEVEError naming the file and the key when it is missing, not YAML, or not valid.
    """
    raw = read_mapping(path)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise EEVEError(explain(error, str(path))) from None
