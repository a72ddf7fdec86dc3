"""The modules of the package and what each imports, read from their source: nothing is run."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PACKAGE = "eeve_axolotl"
OTHER_NAMES = {"yaml": "pyyaml"}  # where a distribution is not called as what is imported


@dataclass(frozen=True)
class Import:
    """`by` (a dotted module) imports `name`: a module of the package by its full name, any other by its first part."""

    by: str
    name: str
    at_top: bool  # when `by` itself is imported, not when a function of it is called or for types only


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name. The recipes that travel inside it are no part of it."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] != "examples":
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    """Every import of every module, at any depth; the standard library's are left out."""
    found = []
    for by in modules():
        body = set(tree(by).body)
        for node in ast.walk(tree(by)):
            for name in _names(by, node):
                if name.partition(".")[0] == PACKAGE:
                    name = _module_of(name)
                else:
                    name = name.partition(".")[0]
                if name != by and name not in sys.stdlib_module_names:
                    found.append(Import(by, name, node in body))
    return tuple(found)


def _names(by: str, node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        inside = by.split(".") if modules()[by].name == "__init__.py" else by.split(".")[:-1]
        base = ".".join([*inside[: len(inside) - node.level + 1], *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def _module_of(name: str) -> str:
    """The module that `package.module.attribute` lies in."""
    while name not in modules():
        name = name.rpartition(".")[0]
    return name


def distribution(name: str) -> str:
    """The name under which the package registry has what provides the import `name`."""
    return canonicalize_name(OTHER_NAMES.get(name, name))
