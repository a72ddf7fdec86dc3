"""How far a long step is: a bar on a terminal, elsewhere a line now and then; and a chain that started it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from logging import Logger
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from eeve_axolotl import progress

Reading = tuple[float | None, int]
"""The share that is done (None where it is not known), and the bytes that are."""

_DRAWN = 0.5  # seconds between two pictures of a bar
_TOLD = 1.0  # seconds between two lines for a chain


class Meter:
    """Says how far the block is that runs in it, by what `at` was told last, or by what it asks `ask`.

    On a terminal a bar, which is gone when the block is done; elsewhere a line in the log every `every` seconds, so that
    a short step says nothing.
    """

    def __init__(
        self,
        what: str,
        log: Logger,
        ask: Callable[[], Reading] | None = None,
        *,
        every: float = 30,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
            what: the step, as in "counting words".
            ask: called from a thread of its own.
        """
        self._what, self._log, self._ask, self._every, self._clock = what, log, ask, every, clock
        self._console = console or Console(stderr=True)
        self._reading: Reading = (None, 0)
        self._started = clock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def at(self, share: float | None, size: int) -> None:
        """Note the share of the step that is done, and how many bytes that is."""
        self._reading = (share, size)

    def then(self, what: str) -> None:
        """Go on to another part of the step, of which it is not known how far it is."""
        self._what, self._reading, self._started = what, (None, 0), self._clock()

    def reading(self, texts: Iterable[str]) -> Iterator[str]:
        """`texts`; notes how many bytes of them are read."""
        size = 0
        for text in texts:
            yield text
            size += len(text.encode("utf-8", "surrogatepass"))
            self.at(None, size)

    def line(self) -> str:
        """How far it is, in words."""
        return self._line(*self._now())

    def _now(self) -> Reading:
        return self._ask() if self._ask else self._reading

    def _line(self, share: float | None, size: int) -> str:
        gone = self._clock() - self._started
        said = [] if share is None else [f"{min(share, 1):.0%}"]
        if size:
            said += [f"{size / 1e6:,.1f} MB", f"{size / 1e6 / max(gone, 1e-3):,.1f} MB/s"]
        left = f"{_clock(gone * (1 / min(share, 1) - 1))} left" if share else ""
        said.append(left or f"{_clock(gone)} gone")
        return f"{self._what}: {', '.join(said)}"

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _tell(self) -> None:
        if progress.asked():
            self._tell_chain()
        elif not self._console.is_terminal:
            while not self._done.wait(self._every):
                self._log.info("%s", self.line())
        else:
            self._draw()

    def _tell_chain(self) -> None:
        """Often for the chain, which shows it; now and then for the log that it keeps."""
        said = self._clock()
        while not self._done.wait(_TOLD):
            share, size = self._now()
            line = self._line(share, size)
            progress.tell(progress.LongStep(line, share))
            if self._clock() - said >= self._every:
                said = self._clock()
                self._log.info("%s", line)

    def _draw(self) -> None:
        columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(self.line(), total=None)
            while not self._done.wait(_DRAWN):
                share, size = self._now()
                bar.update(task, description=self._line(share, size), completed=min(share or 0.0, 1.0))
                if share is not None:
                    bar.update(task, total=1.0)


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
