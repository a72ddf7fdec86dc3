"""Reading a YAML file of ours into a pydantic model, with errors for the person at the keyboard."""

from __future__ import annotations

import copy
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from eeve_axolotl.errors import EEVEError


class Settings(BaseModel):
    """Base of every block and file of ours: an unknown key is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True)


S = TypeVar("S", bound=BaseModel)


def explain(error: ValidationError, where: str, model: type[BaseModel] | None = None) -> str:
    """One sentence per problem: the key's path, what is wrong, and for an unknown key of `model` the nearest known one."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = nearest(str(problem["loc"][-1]), _keys_at(model, problem["loc"][:-1])) if model else None
            meant = f" (did you mean `{near}`?)" if near else ""
            message = f"there is no such key; remove it or correct its spelling{meant}"
        lines.append(f"{key}: {message}" if key else message)
    return f"{where}: " + "; ".join(lines)


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that `key` is a misspelling of, by its letters; None where there is none like it."""
    found = difflib.get_close_matches(key, [*known], n=1, cutoff=0.85)
    return found[0] if found else None


def _keys_at(model: type[BaseModel], place: Iterable[Any]) -> set[str]:
    """The keys that a model knows at a place of a validation error: of whatever models its annotations name there."""
    models = [model]
    for part in place:
        annotations = [each.model_fields[part].annotation for each in models if part in each.model_fields]
        models = [inner for each in annotations for inner in _models_in(each)] or models
    return {name for each in models for name in each.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in typing.get_args(annotation):
        yield from _models_in(each)


def duplicate_keys(path: str | Path) -> list[tuple[str, list[int]]]:
    """The keys that stand more than once in one mapping of a YAML file, with their lines: YAML takes the last.

    Of a file that cannot be read there are none.
    """
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    return list(_duplicates(root, "", set()))


def _duplicates(node: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, list[int]]]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, list[int]] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                lines.setdefault(key.value, []).append(key.start_mark.line + 1)
        yield from ((prefix + key, found) for key, found in lines.items() if len(found) > 1)
        for key, value in node.value:
            yield from _duplicates(value, f"{prefix}{getattr(key, 'value', '')}.", seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            yield from _duplicates(each, f"{prefix}{number}.", seen)


def changed(mapping: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """`mapping` with each of `changes`, KEY=VALUE: KEY leads through blocks with dots, VALUE is YAML.

    A number is the place in a list. Raises EEVEError for what is no such form, or leads nowhere.
    """
    found: dict[str, Any] = copy.deepcopy(dict(mapping))
    for change in changes:
        key, equals, value = change.partition("=")
        *way, last = key.split(".")
        if not equals or not all((*way, last)):
            raise EEVEError(f"--set {change}: give KEY=VALUE, like evaluate.dtype=bfloat16")
        block: Any = found
        try:
            for part in way:
                if isinstance(block, list):
                    block = block[int(part)]
                else:
                    if block.get(part) is None:
                        block[part] = {}
                    block = block[part]
            block[int(last) if isinstance(block, list) else last] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise EEVEError(f"--set {change}: {value} is no value for YAML; put it in quotes") from None
        except (AttributeError, IndexError, TypeError, ValueError):
            raise EEVEError(f"--set {change}: there is no {key} to set; correct the key") from None
    return found


def read_mapping(path: str | Path, changes: Iterable[str] = ()) -> dict[str, Any]:
    """The keys of the YAML file `path`, with `changes` (see `changed`).

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
    return changed(raw, changes)


def read_yaml(path: str | Path, model: type[S], changes: Iterable[str] = ()) -> S:
    """Read the YAML file `path`, with `changes` (see `changed`), into `model`.

    Raises EEVEError naming the file and the key when it is missing, not YAML, or not valid.
    """
    raw = read_mapping(path, changes)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise EEVEError(explain(error, str(path), model)) from None
