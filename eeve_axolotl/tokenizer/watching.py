"""How far the long steps of a build are, seen from outside: what they read is looked at while they read it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from eeve_axolotl.logs import logger
from eeve_axolotl.meter import Meter, Reading
from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer.counting import WordTable

LOG = logger("tokenizer")
_READ = "read"  # in the directory of the counts: how far each shard is read, whoever reads it


@contextlib.contextmanager
def counting(shards: Sequence[Shard], directory: Path) -> Iterator[Sequence[Shard]]:
    """Gives the shards to count into `directory`; meanwhile says how many bytes of their files are read.

    Processes elsewhere tell it too: by files, for they share the directory.
    """
    places = [directory / _READ / str(number) for number in range(len(shards))]
    sizes = [shard.size() for shard in shards]
    names = [shard.place for shard in shards]
    total = sum(sizes)

    def read() -> Reading:
        counted = _counted(directory)
        done = sum(
            size if name in counted else _number(place)
            for size, name, place in zip(sizes, names, places, strict=True)
        )
        return (done / total if total and all(sizes) else None), done

    shutil.rmtree(directory / _READ, ignore_errors=True)
    (directory / _READ).mkdir(parents=True)
    try:
        with Meter("counting words", LOG, read):
            yield [shard.telling(place) for shard, place in zip(shards, places, strict=True)]
    finally:
        shutil.rmtree(directory / _READ, ignore_errors=True)


def _counted(directory: Path) -> set[str]:
    """The shards that have a finished part."""
    found = set()
    for mark in (directory / "marks").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # one that is being replaced
            found.add(json.loads(mark.read_text(encoding="utf-8"))["file"])
    return found


def _number(place: Path) -> int:
    try:
        return int(place.read_text() or 0)
    except (OSError, ValueError):  # nothing is read yet, or it is being written
        return 0


class WatchedTable(WordTable):
    """A table of words that tells a meter how much of it is read, if it is read `times` times."""

    def __init__(self, table: WordTable, meter: Meter, times: int):
        super().__init__(table.path, table.splitter, table.files, table.documents, table.bytes)
        self._meter, self._times, self._rows, self._size = meter, times, 0, 0

    def batches(self, rows: int = 20_000) -> Iterator[tuple[list[str], list[int]]]:
        """Words and their counts, so many at a time, in the order of the words."""
        for words, counts in super().batches(rows):
            yield words, counts
            self._rows += len(words)
            self._size += sum(map(_bytes, words))
            self._meter.at(self._rows / max(1, self.distinct * self._times), self._size)


def learning(words: Iterable[tuple[str, int]], total: int, meter: Meter) -> Iterator[tuple[str, int]]:
    """Words and counts that something is trained on, of which there are about `total`.

    Tells a meter how many bytes of text that is, and what comes when all are read.
    """
    size = 0
    for n, (word, count) in enumerate(words, start=1):
        yield word, count
        size += count * _bytes(word)
        meter.at(n / total if total else None, size)
    meter.then("learning, merging pairs")


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
