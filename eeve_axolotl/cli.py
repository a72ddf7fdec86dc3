"""`axolotl eeve ...`: thin commands. Heavy imports stay inside the commands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import click

from eeve_axolotl.errors import EEVEError


@click.group()
def eeve() -> None:
    """Teach a model a new language's vocabulary, the EEVE way."""


def told_plainly(command: Callable) -> Callable:
    """Print an EEVEError as one line on stderr and exit with 1, without a traceback."""

    @functools.wraps(command)
    def wrapper(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except EEVEError as error:
            click.secho(f"Error: {error}", fg="red", err=True)
            sys.exit(1)

    return wrapper
