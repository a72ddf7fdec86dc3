"""What a person asks `axolotl eeve init` for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wanted:
    """The command's options. Paths are as they were given: relative to where the command runs."""

    directory: Path
    base: str
    corpus: tuple[str, ...]
    language: str | None = None
    script: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    """NAME=PATH of text in the languages that the base knows."""
    columns: tuple[str, ...] = ()
    gpus: int | None = None
    gpu: str | None = None
    memory: float | None = None
    """GB of one GPU, instead of its name."""
    new_tokens: int = 8_960
    steps: int = 400
    sequence_len: int | None = None
    global_batch: int = 256
    start: bool = True
    """Whether new output rows start from text, before any stage."""
    short: bool = False
    """Stage 6 alone instead of seven stages."""
