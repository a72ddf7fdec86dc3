"""Options that several commands share, and questions to whoever sits at the terminal."""

from __future__ import annotations

import sys

import click

from eeve_axolotl.errors import EEVEError

set_keys = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="A key of the YAML otherwise: a.b=value."
)

DTYPE = click.Choice(["auto", "float32", "bfloat16", "float16"])
"""What weights are read as; `auto`: as they were saved."""


def asked(what: str, option: str) -> str:
    """The answer, or an error that names the option where nobody can answer."""
    if not sys.stdin.isatty():
        raise EEVEError(f"say {what}: {option}")
    answer: str = click.prompt(what.capitalize())
    return answer


def named(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """NAME=FILE, each name once."""
    found: dict[str, str] = {}
    for each in given:
        name, _, file = each.partition("=")
        if not (name.strip() and file.strip()):
            raise click.BadParameter(f"{each!r}: give a text its name, NAME=FILE, like Korean=held_out.jsonl")
        if name in found:
            raise click.BadParameter(f"two texts are called {name}; give each its own name")
        found[name] = file
    return found
