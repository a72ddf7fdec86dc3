"""What a person sees while a chain runs: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from eeve_axolotl.pipeline.tasks import Task
from eeve_axolotl.progress import LoggedStep, LongStep, Told
from eeve_axolotl.report.figures import duration

LINES = 10  # of a training in a log that is not a terminal
EVERY = 30.0  # seconds between two lines of a long step there
INDENT = " " * 8


@dataclass
class Pace:
    """How quick a training is, from the steps that it told. The first starts the clock: what came before was loading."""

    first: tuple[int, float] | None = None  # a step and its moment
    last: tuple[int, float] | None = None

    def told(self, step: int) -> None:
        """Step `step` has just been done."""
        self.last = step, time.monotonic()
        self.first = self.first or self.last

    @property
    def seconds_per_step(self) -> float | None:
        """None until two steps were told."""
        if self.first is None or self.last is None:
            return None
        steps, seconds = self.last[0] - self.first[0], self.last[1] - self.first[1]
        return seconds / steps if steps > 0 and seconds > 0 else None


class Display:
    """Shows which task is running, how far and how quick it is, and how long it took.

    Of a training it shows steps and loss, of other tasks the long steps that they tell.

    Args:
        total: tasks of the chain, done ones included.
        console: where to show it; standard error if not given.
        ahead: optimiser steps of all trainings that are not done, at most; None where that is not known.
        price_per_hour: of what the chain runs on.
    """

    def __init__(
        self,
        total: int,
        console: Console | None = None,
        ahead: int | None = None,
        price_per_hour: float | None = None,
    ):
        self._console = console or Console(stderr=True)
        self._total = total
        self._ahead = ahead
        self._price = price_per_hour
        self._started = time.monotonic()
        self._pace = Pace()
        self._number = 0
        self._current: Task | None = None
        self._begun = 0.0
        self._steps = 0
        self._said = 0.0
        self._bar: Progress | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(failed=kind is not None)

    def task(self, task: Task) -> None:
        """The next task begins (or is passed over, being done)."""
        self._finish()
        self._number += 1
        done = " (done before)" if task.done else ""
        self._line(f"[{self._number:2d}/{self._total}] {task.what}{done}")
        self._current = None if task.done else task
        self._begun, self._steps, self._pace = time.monotonic(), 0, Pace()
        self._said = self._begun
        if self._ahead is not None and not task.done:
            self._ahead -= task.steps  # from here on, those after this task

    def told(self, told: Told) -> None:
        """The running command has told how far it is."""
        if self._current is None:
            return
        if isinstance(told, LongStep):
            self._long_step(told)
        else:
            self._step(self._current, told)

    def _long_step(self, step: LongStep) -> None:
        if self._console.is_terminal:
            self._bar = self._bar or self._new_bar(BarColumn(bar_width=12), TextColumn("{task.description}"))
            # Without a total, which `update` cannot take back, it is drawn as a bar that moves to and fro.
            percent = 0 if step.share is None else min(round(100 * step.share), 100)
            self._bar.reset(TaskID(0), total=None if step.share is None else 100, completed=percent)
            self._bar.update(TaskID(0), description=step.line)
            return
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            self._line(f"{INDENT}{step.line}")

    def _step(self, task: Task, step: LoggedStep) -> None:
        total = _total_steps(task, step)
        loss = "loss not finite" if step.loss is None else f"loss {step.loss:.3f}"
        before, self._steps = self._steps, step.step
        self._pace.told(step.step)
        loss = "  ".join([loss, *self._how_quick(task, step, total)])
        if self._console.is_terminal:
            # Made only now, and for one task: it has a thread, which must not be there when a process is started.
            self._bar = self._bar or self._new_bar(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
            )
            self._bar.update(TaskID(0), completed=step.step, total=total, description=loss)
            return
        every = max(1, (total or 0) // LINES)
        if step.step // every > before // every:
            of = f"/{total:,}" if total else ""
            self._line(f"{INDENT}step {step.step:,}{of}  {loss}")

    def _how_quick(self, task: Task, step: LoggedStep, total: int | None) -> list[str]:
        """The stage in a run of several, tokens a second, time left of the chain at this pace, and the cost so far."""
        said = []
        if task.trains is not None and len(task.trains.stages) > 1:
            said.append(f"stage {step.stage}")
        if seconds := self._pace.seconds_per_step:
            said.append(f"{step.tokens_per_step / seconds:,.0f} tokens/s")
            if total and self._ahead is not None:
                said.append(f"{duration((total - step.step + self._ahead) * seconds)} of training left")
        if self._price is not None:
            said.append(f"cost {(time.monotonic() - self._started) / 3600 * self._price:,.2f}")
        return said

    def _new_bar(self, *columns: ProgressColumn) -> Progress:
        bar = Progress(TextColumn(INDENT[1:]), *columns, console=self._console, transient=True)
        bar.add_task("")
        bar.start()
        return bar

    def _finish(self, failed: bool = False) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._current is not None:
            self._line(f"{INDENT}{time.monotonic() - self._begun:.0f} s{', failed' if failed else ''}")
            self._current = None

    def _line(self, text: str) -> None:
        """A line as it is: paths are not folded, brackets are no markup."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


def _total_steps(task: Task, step: LoggedStep) -> int | None:
    """Steps of the task at most: as its YAML says, or for a run of one stage as its trainer does."""
    alone = task.trains is not None and len(task.trains.stages) == 1
    return task.steps or (step.max_steps if alone else None)
