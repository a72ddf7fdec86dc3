"""Progress over a whole chain: in place on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from eeve_axolotl.pipeline.chain import Task


class Progress:
    """Shows which task is running, its training steps and loss, and how long finished tasks took."""

    def __init__(self, tasks: list[Task]):
        self._total = len(tasks)
        self._number = 0
        self._current: Task | None = None
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind, *_) -> None:
        self._finish(failed=kind is not None)

    def task(self, task: Task) -> None:
        """The next task begins (or is passed over, being done)."""
        self._finish()
        self._number += 1
        done = " (done before)" if task.done else ""
        click.echo(f"[{self._number:2d}/{self._total}] {task.what}{done}", err=True)
        self._current = None if task.done else task
        self._steps, self._begun = 0, time.monotonic()

    def step(self, loss: float, step: int | None) -> None:
        """A training step was logged; without its number, it is the one after the last."""
        before, self._steps = self._steps, step or self._steps + 1
        of = f"/{self._current.steps:,}" if self._current.steps else ""
        line = f"        step {self._steps:,}{of}  loss {loss:.3f}"
        every = max(1, self._current.steps // 10)
        if self._terminal:
            click.echo(f"\r{line}  ", nl=False, err=True)
        elif self._steps // every > before // every:
            click.echo(line, err=True)

    def _finish(self, failed: bool = False) -> None:
        if self._current is not None:
            seconds = f"        {time.monotonic() - self._begun:.0f} s{', failed' if failed else ''}"
            click.echo(f"\r{seconds:<40}" if self._terminal else seconds, err=True)
            self._current = None
