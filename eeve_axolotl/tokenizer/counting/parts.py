"""What is counted by itself, and the marks that finished parts leave.

The name of a part is a hash of all that its counts depend on (the file and its content, columns, how
words are cut), so that counts of other text or settings are never taken for these.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import write_json
from eeve_axolotl.logs import logger
from eeve_axolotl.sources import Shard

LOG = logger("tokenizer")
_MOST_PARTS = 8  # each part of a file reads all of it: more parts would only read


@dataclass(frozen=True)
class Part:
    """What one process counts: of a shard's blocks of documents every `of`-th, from block `number` on."""

    id: str
    shard: Shard
    number: int
    of: int


@dataclass(frozen=True)
class Mark:
    """What a finished part leaves."""

    part: str
    """The part's id."""

    file: str
    """What messages call its shard."""

    documents: int
    """How many it has."""

    bytes: int
    """Their size in UTF-8."""

    parquet: tuple[str, ...]
    """The names of its files of partial counts."""

    def write(self, directory: Path) -> None:
        """Leave this mark in the directory of the counts."""
        write_json(_mark_of(directory, self.part), asdict(self))


def divide(shards: Sequence[Shard], sizes: Sequence[int], digest: str, workers: int) -> list[Part]:
    """The parts of `shards`.

    A shard is cut where one process would still be busy with it when the others have nothing left to do.

    Args:
        sizes: bytes of each shard, 0 where that is not known.
        digest: the word splitter's.
    """
    share = max(1, sum(sizes) / workers)
    parts = []
    for shard, size in zip(shards, sizes, strict=True):
        of = min(_MOST_PARTS, math.ceil(size / share)) or 1
        of_shard = shard.identity()
        for number in range(of):
            what = [digest, of_shard, number, of]
            identity = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
            parts.append(Part(identity, shard, number, of))
    # A corpus that names a file twice has it twice.
    seen: Counter[str] = Counter()
    for n, part in enumerate(parts):
        seen[part.id] += 1
        if seen[part.id] > 1:
            parts[n] = Part(f"{part.id}.{seen[part.id]}", part.shard, part.number, part.of)
    return parts


def resume(directory: Path, parts: Iterable[Part]) -> dict[str, Mark]:
    """The marks of those of `parts` that are finished in `directory`, by their ids; what is not of them is removed.

    Makes the directory if it is not there. Raises EEVEError for what the disk refuses.
    """
    with disk_errors(directory):
        for name in ("words", "marks"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        known = {part.id for part in parts}
        _remove_strangers(directory, known)
        return _finished(directory, known)


def _mark_of(directory: Path, part: str) -> Path:
    return directory / "marks" / f"{part}.json"


def _finished(directory: Path, ids: Iterable[str]) -> dict[str, Mark]:
    """The marks whose files of partial counts are all there."""
    marks = {}
    for part in ids:
        path = _mark_of(directory, part)
        if path.exists():
            mark = _read(path)
            if mark and all((directory / "words" / name).exists() for name in mark.parquet):
                marks[part] = mark
    return marks


def _read(path: Path) -> Mark | None:
    """A mark; None where it is none of ours, so that the part is counted again."""
    try:
        return TypeAdapter(Mark).validate_json(path.read_bytes(), strict=True)
    except ValidationError:
        return None


def _remove_strangers(directory: Path, known: set[str]) -> None:
    """Remove what was counted from other text or with other settings, and say so."""
    strangers = [path for path in (directory / "marks").glob("*.json") if path.stem not in known]
    if strangers:
        LOG.warning(
            "%s has counts of %d files that have changed since, or were counted with other settings; "
            "these start again",
            directory, len({mark.file if (mark := _read(path)) else path.name for path in strangers}),
        )  # fmt: skip
    for path in strangers:
        path.unlink()
    for path in (directory / "words").iterdir():
        if path.name.startswith(".") or path.stem.rpartition("-")[0] not in known:
            path.unlink()


@contextlib.contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turns what the disk refuses into a sentence.

    Raises EEVEError in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise EEVEError(
            f"{directory}: the counts cannot be written ({error.strerror or error}); "
            "make room there, or set work_directory"
        ) from None
