"""A packaged recipe with other values: keys are changed where they stand, so that order and comments stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml


def scalar(value: Any) -> str:
    """A value as a YAML has it in one line."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./+-]+", value):
        return yaml.safe_dump(value, allow_unicode=True, default_style='"', width=10**6).strip()
    if isinstance(value, str):
        return value  # 4e-5 is no number for YAML, and Axolotl takes it for one
    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
        .removesuffix("...\n")
        .strip()
    )


def changed(recipe: str, values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """`recipe` with these values, and comments; an own comment stays where the value does, unless another is given.

    Raises KeyError for a key that the recipe does not have.
    """
    for key, value in values.items():
        line = re.compile(
            rf"(?m)^(?P<key>[ ]*(?:- )?{re.escape(key)}:)[ ]*(?P<value>[^#\n]*?)(?P<comment>[ ]*#.*)?$"
        )
        found = line.search(recipe)
        if found is None:
            raise KeyError(key)
        new = scalar(value)
        comment = (found["comment"] or "") if found["value"].strip() == new else ""
        if comments and key in comments:
            comment = f"    # {comments[key]}" if comments[key] else ""
        recipe = f"{recipe[: found.start()]}{found['key']} {new}{comment}{recipe[found.end() :]}"
    return recipe


def without(recipe: str, *keys: str) -> str:
    """`recipe` without these keys of a line."""
    for key in keys:
        recipe, times = re.subn(rf"(?m)^[ ]*{re.escape(key)}:.*\n", "", recipe)
        if not times:
            raise KeyError(key)
    return recipe


def below(recipe: str, key: str, *lines: str) -> str:
    """`recipe` with `lines` below that of `key`, as far in as it."""
    found = re.search(rf"(?m)^(?P<indent>[ ]*){re.escape(key)}:.*\n", recipe)
    if found is None:
        raise KeyError(key)
    added = "".join(f"{found['indent']}{line}\n" for line in lines)
    return recipe[: found.end()] + added + recipe[found.end() :]


def headed(recipe: str, *lines: str) -> str:
    """`recipe` with another header: the comment above its first empty line."""
    _, _, body = recipe.partition("\n\n")
    return "".join(f"# {line}\n" if line else "#\n" for line in lines) + "\n" + body
