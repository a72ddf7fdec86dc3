"""From files to a table of distinct words on disk, in bounded memory.

Each file, or each part of a large one, is counted by itself: words go into a hash table, and when that
has grown to its share of the memory, into a Parquet file of partial counts. A part that is finished leaves
a mark, so that a run that was killed goes on after it. In the end DuckDB, which keeps to a memory limit,
adds the partial counts up.

    words/<part>-<n>.parquet   partial counts (word, count, documents), sorted by word
    marks/<part>.json          a finished part: its documents, bytes and files
    words.parquet              the table: every word of the corpus once, sorted
    words.json                 what it was merged from

The name of a part is a hash of all that its counts depend on (file, size, time of change, columns, how
words are cut), so that counts of other text or settings are never taken for these.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import numpy as np
import pyarrow

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer.words import Segmentation

LOG = logger("tokenizer")
_SCHEMA = pyarrow.schema({"word": pyarrow.string(), "count": pyarrow.int64(), "documents": pyarrow.int64()})
_MOST_PARTS = 8  # each part of a file reads all of it: more parts would only read
_WORTH = 64_000_000  # bytes of files that take as long as a process takes to start


@dataclass(frozen=True)
class Part:
    """Every `of`-th block of a file's documents, from block `number` on: what one process counts."""

    id: str
    shard: Shard
    number: int
    of: int


@dataclass(frozen=True)
class Mark:
    """What a finished part leaves: how much text it was, and its files of partial counts."""

    part: str
    file: str
    documents: int
    bytes: int
    parquet: tuple[str, ...]


class WordTable:
    """A corpus's distinct words on disk, with how often each occurs and in how many documents."""

    def __init__(self, path: Path, segmentation: Segmentation, files: int, documents: int, bytes: int):
        from pyarrow import parquet

        self.path = path
        self.segmentation = segmentation
        self.files = files
        self.documents = documents
        self.bytes = bytes
        self.distinct = parquet.read_metadata(path).num_rows

    def batches(self, rows: int = 20_000) -> Iterator[tuple[list[str], list[int]]]:
        """Words and their counts, so many at a time, in the order of the words."""
        for batch in self.record_batches(rows):
            yield batch["word"].to_pylist(), batch["count"].to_pylist()

    def record_batches(self, rows: int) -> Iterator:
        """The same as Arrow's record batches, with the number of documents that have the word."""
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as table:
            for batch in table.iter_batches(rows, columns=_SCHEMA.names):
                yield batch.cast(_SCHEMA)

    def spans(self, most: int | None = None) -> Iterator[tuple[str, int]]:
        """The parts of the words that can become tokens, with the counts of the words. May repeat one.

        Args:
            most: leave out the rarest words, all of a count alike, until no more than so many are left.
        """
        for words, counts in self.frequent(most):
            for word, count in zip(words, counts, strict=True):
                for span in self.segmentation.spans(word):
                    yield span, count

    def frequent(self, most: int | None = None) -> Iterator[tuple[list[str], list[int]]]:
        """Batches without the rarest words, so that no more than `most` are left; all words for None."""
        least = 1 if most is None or self.distinct <= most else self._least(most)
        for words, counts in self.batches():
            kept = [(word, count) for word, count in zip(words, counts, strict=True) if count >= least]
            yield [word for word, _ in kept], [count for _, count in kept]

    def _least(self, most: int) -> int:
        """The lowest count that at most `most` words reach, if it is not above a million."""
        words = np.zeros(1_000_001, dtype=np.int64)
        for _, counts in self.batches():
            words += np.bincount(np.minimum(counts, len(words) - 1), minlength=len(words))
        reach = words[::-1].cumsum()[::-1]
        return int(min(np.searchsorted(-reach, -most), len(words) - 1))


def count(
    shards: list[Shard],
    segmentation: Segmentation,
    directory: Path,
    *,
    memory_mb: int = 4_000,
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
) -> WordTable:
    """Count the words of `shards`, in `directory`, going on from what is finished there.

    Args:
        memory_mb: for the counts of all processes together, and for the merge.
        workers: how many processes count at once; here fewer, if there is too little text for so many.
        engine: `local`, or `ray` for the cluster that Ray finds (RAY_ADDRESS; else it starts one here);
            its machines must share `directory` and the corpus.

    Raises EEVEError for what the files raise, a full disk, or a corpus without a word of the scripts.
    """
    sizes = [shard.size() for shard in shards]
    if engine == "local" and all(sizes):  # a dataset's is not known
        workers = min(workers, 1 + sum(sizes) // _WORTH)
    parts = _parts(shards, sizes, segmentation.digest, workers)
    with _disk_errors(directory):
        for name in ("words", "marks"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        marks = _finished(directory, parts)
        _remove_strangers(directory, parts)
    if marks:
        LOG.info("%d of %d parts of the corpus are counted already", len(marks), len(parts))
    left = [part for part in parts if part.id not in marks]
    each = memory_mb * 1_000_000 // max(1, min(workers, len(left)))
    counted = _ENGINES[engine](left, segmentation, directory, each, workers)
    started = time.monotonic()
    for mark in counted:
        marks[mark.part] = mark
        LOG.info(
            "counted %s: %s documents, %.1f MB (part %d of %d; %.0f s)",
            mark.file, f"{mark.documents:,}", mark.bytes / 1e6, len(marks), len(parts), time.monotonic() - started,
        )  # fmt: skip
    path = _merge(directory, [marks[part.id] for part in parts], memory_mb, workers)
    table = WordTable(
        path,
        segmentation,
        files=len(shards),
        documents=sum(mark.documents for mark in marks.values()),
        bytes=sum(mark.bytes for mark in marks.values()),
    )
    if not table.distinct:
        raise EEVEError(
            f"the corpus has no text in {' or '.join(segmentation.scripts)}; correct `corpus` or `script`"
        )
    return table


def count_part(part: Part, segmentation: Segmentation, directory: Path, memory: int) -> Mark:
    """Count the words of one part into `directory`, with about `memory` bytes for the counts."""
    from eeve_axolotl.tokenizer.tally import Tally

    tally = Tally(segmentation, directory / "words" / part.id, memory)
    documents = 0
    with _disk_errors(directory), _threads_take_turns():
        for text in part.shard.texts(part.number, part.of):
            documents += 1
            tally.add(text)
        tally.close()
        mark = Mark(part.id, part.shard.place, documents, tally.bytes, tuple(tally.files))
        _put(directory / "marks" / f"{part.id}.json", json.dumps(asdict(mark)))
    return mark


def _parts(shards: list[Shard], sizes: list[int], digest: str, workers: int) -> list[Part]:
    """The shards, those in parts that would keep one of `workers` busy while the others have nothing to do."""
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


def _finished(directory: Path, parts: Iterable[Part]) -> dict[str, Mark]:
    marks = {}
    for part in parts:
        path = directory / "marks" / f"{part.id}.json"
        if path.exists():
            raw = json.loads(path.read_text(encoding="utf-8"))
            mark = Mark(**{**raw, "parquet": tuple(raw["parquet"])})
            if all((directory / "words" / name).exists() for name in mark.parquet):
                marks[part.id] = mark
    return marks


def _remove_strangers(directory: Path, parts: Iterable[Part]) -> None:
    """Remove what was counted from other text or with other settings, and say so."""
    known = {part.id for part in parts}
    strangers = [path for path in (directory / "marks").glob("*.json") if path.stem not in known]
    if strangers:
        LOG.warning(
            "%s has counts of %d files that have changed since, or were counted with other settings; "
            "these start again",
            directory, len({json.loads(path.read_text(encoding="utf-8"))["file"] for path in strangers}),
        )  # fmt: skip
    for path in strangers:
        path.unlink()
    for path in (directory / "words").iterdir():
        if path.name.startswith(".") or path.stem.rpartition("-")[0] not in known:
            path.unlink()


def _here(parts, segmentation, directory, memory, workers) -> Iterator[Mark]:
    """Count in this process, or in `workers` others."""
    if workers == 1 or len(parts) < 2:
        for part in parts:
            yield count_part(part, segmentation, directory, memory)
        return
    # Plain processes: those of multiprocessing would import the main program, and with it torch, in each.
    command = [sys.executable, "-c", f"from {__name__} import _child; _child()"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(min(workers, len(parts)))
    ]
    idle: SimpleQueue[subprocess.Popen] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def one(part: Part) -> Mark:
        process = idle.get()
        try:
            pickle.dump((part, segmentation, directory, memory), process.stdin)
            process.stdin.flush()
            found = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError):
            raise EEVEError(
                f"{part.shard.place}: the process that counted it ended with {process.wait()}; "
                "if memory ran out, lower memory_mb or workers"
            ) from None
        finally:  # a dead one too, or who waits for it waits for ever
            idle.put(process)
        if isinstance(found, EEVEError):
            raise found
        return found

    pool = ThreadPoolExecutor(len(processes))
    try:
        for future in as_completed([pool.submit(one, part) for part in parts]):
            yield future.result()
    finally:
        for process in processes:
            process.kill()
        pool.shutdown(cancel_futures=True)
        for process in processes:
            with contextlib.suppress(BrokenPipeError):  # what a dead one was not told
                process.__exit__(None, None, None)
            process.wait()


def _child() -> None:
    """A process of `_here`: what to count comes on stdin, marks or errors go to stdout, until stdin ends."""
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            found = count_part(*arguments)
        except EEVEError as error:
            found = error
        pickle.dump(found, answers)
        answers.flush()


def _on_ray(parts, segmentation, directory, memory, workers) -> Iterator[Mark]:
    """Count on a Ray cluster, `workers` parts at a time."""
    try:
        import ray
    except ImportError:
        raise EEVEError(
            "engine: ray needs Ray; pip install 'eeve-axolotl[ray]', or set engine: local"
        ) from None
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        shared = ray.put(segmentation)
        remote = ray.remote(num_cpus=1, max_retries=2)(count_part)
        waiting, running = list(reversed(parts)), []
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(remote.remote(waiting.pop(), shared, directory.resolve(), memory))
            done, running = ray.wait(running)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, EEVEError):
                    raise error.cause from None
                raise
    finally:
        if started:
            ray.shutdown()


_ENGINES = {"local": _here, "ray": _on_ray}


def _merge(directory: Path, marks: list[Mark], memory_mb: int, workers: int) -> Path:
    """Add up the partial counts of `marks` into the table, sorted by word; returns its path."""
    import duckdb
    from pyarrow import parquet

    path, note = directory / "words.parquet", directory / "words.json"
    made_of = json.dumps([asdict(mark) for mark in marks])
    if path.exists() and note.exists() and note.read_text(encoding="utf-8") == made_of:
        return path
    note.unlink(missing_ok=True)
    files = [str(directory / "words" / name) for mark in marks for name in mark.parquet]
    beside, scratch = _beside(path), directory / "merge"
    with _disk_errors(directory):
        if len(files) == 1:  # sorted, each word once
            shutil.copyfile(files[0], beside)
        elif not files:
            parquet.write_table(_SCHEMA.empty_table(), beside)
        else:
            settings = {"memory_limit": f"{memory_mb}MB", "temp_directory": str(scratch), "threads": workers}
            try:
                with duckdb.connect(config=settings) as connection:
                    connection.execute(
                        "COPY (SELECT word, sum(count)::BIGINT AS count, sum(documents)::BIGINT AS documents "
                        f"FROM read_parquet($1) GROUP BY word ORDER BY word) TO '{_quoted(beside)}' "
                        "(FORMAT parquet, COMPRESSION zstd)",
                        [files],
                    )
            except duckdb.OutOfMemoryException:
                raise EEVEError(
                    f"memory_mb: {memory_mb} is too little to merge the counts; raise it, or make room in {directory}"
                ) from None
            except duckdb.IOException as error:
                raise EEVEError(
                    f"{directory}: the merge of the counts could not read or write there "
                    f"({str(error).splitlines()[0]}); make room, or set work_directory"
                ) from None
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        beside.replace(path)
        _put(note, made_of)
    return path


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _beside(path: Path) -> Path:
    """Where to write a file before it is moved into place, so that half a file never has its name."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _put(path: Path, text: str) -> None:
    beside = _beside(path)
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


@contextlib.contextmanager
def _threads_take_turns() -> Iterator[None]:
    """One that decompresses or counts needs Python for an instant only, and else would wait 5 ms for it."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    """Turns what the disk refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise EEVEError(
            f"{directory}: the counts cannot be written ({error.strerror or error}); "
            "make room there, or set work_directory"
        ) from None
