"""How a process tells the chain that started it how far it is: one JSON object a line, in a file.

The chain names the file in an environment variable, the process appends to it, and the chain reads it as it grows.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "EEVE_PROGRESS"  # in the environment: the file to append to


@dataclass(frozen=True)
class LoggedStep:
    """An optimiser step whose loss was logged. Its fields are the keys of a line."""

    stage: str
    step: int
    """Counted over all stages of the run, from 1."""
    max_steps: int | None
    """Steps of this stage at most; None where epochs end it."""
    loss: float | None
    """None where it is not finite."""
    tokens_per_step: int


@dataclass(frozen=True)
class LongStep:
    """How far a long step is that trains nothing. Its fields are the keys of a line."""

    line: str
    """In words: "counting words: 12%, 3.4 MB, ..."."""
    share: float | None
    """What is done of it, from 0 to 1; None where that is not known."""


Told = LoggedStep | LongStep


def asked() -> bool:
    """Whether a chain started this process and listens."""
    return bool(os.environ.get(VARIABLE))


def tell(step: Told) -> None:
    """Append `step` to the chain's file; do nothing where no chain started this process."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    content = asdict(step)
    if isinstance(step, LoggedStep) and step.loss is not None and not math.isfinite(step.loss):
        content["loss"] = None  # JSON has no word for it
    with (
        suppress(OSError),
        Path(path).open("a", encoding="utf-8") as lines,
    ):  # a full disk: the run is worth more
        lines.write(json.dumps(content) + "\n")


class Reader:
    """Reads such a file while it is written."""

    def __init__(self, path: Path):
        self._path = path
        self._read = 0  # bytes

    def new(self) -> Iterator[Told]:
        """What was told since the last call. A line that is not whole yet is left for the next."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as lines:
            lines.seek(self._read)
            content = lines.read()
        whole, _, _ = content.rpartition(b"\n")
        self._read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            with suppress(ValueError, TypeError):  # a line that a full disk cut off
                content = json.loads(line)
                yield LongStep(**content) if "line" in content else LoggedStep(**content)
