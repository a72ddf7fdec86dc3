"""The processes that count parts: this one, others on this machine, or those of a Ray cluster."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.counting.parts import Mark, Part, disk_errors
from eeve_axolotl.tokenizer.words.base import WordSplitter

_WORTH = 64_000_000  # bytes of files that take as long as a process takes to start


def worth_starting(sizes: Sequence[int], workers: int) -> int:
    """How many of so many `workers` are worth their start, for files of so many bytes (0: not known)."""
    return min(workers, 1 + sum(sizes) // _WORTH) if all(sizes) else workers


def count_part(part: Part, splitter: WordSplitter, directory: Path, memory: int) -> Mark:
    """Count the words of one part into `directory`.

    Args:
        memory: bytes for the counts, about.

    Raises EEVEError for what the part's file raises, and for a full disk.
    """
    # With numba, which takes a second to import: not where nothing is left to count.
    from eeve_axolotl.tokenizer.counting.word_counter import WordCounter

    counter = WordCounter(splitter, directory / "words" / part.id, memory)
    documents = 0
    with disk_errors(directory), _threads_take_turns():
        for text in part.shard.texts(part.number, part.of):
            documents += 1
            counter.add(text)
        counter.close()
        mark = Mark(part.id, part.shard.place, documents, counter.bytes, tuple(counter.files))
        mark.write(directory)
    return mark


def _locally(
    parts: Sequence[Part], splitter: WordSplitter, directory: Path, memory: int, workers: int
) -> Iterator[Mark]:
    """Count in this process, or in others: yields the mark of each part that is finished."""
    if workers == 1 or len(parts) < 2:
        for part in parts:
            yield count_part(part, splitter, directory, memory)
        return
    children = [_Child() for _ in range(min(workers, len(parts)))]
    idle: SimpleQueue[_Child] = SimpleQueue()
    for child in children:
        idle.put(child)

    def one(part: Part) -> Mark:
        child = idle.get()
        try:
            return child.count(part, splitter, directory, memory)
        finally:  # a dead one too: who waits for it would wait for ever
            idle.put(child)

    pool = ThreadPoolExecutor(len(children))
    try:
        for future in as_completed([pool.submit(one, part) for part in parts]):
            yield future.result()
    finally:
        for child in children:
            child.kill()
        pool.shutdown(cancel_futures=True)
        for child in children:
            child.close()


class _Child:
    """A plain process that counts. One of multiprocessing would import the main program, and with it torch."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", f"from {__name__} import _answer; _answer()"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def count(self, part: Part, splitter: WordSplitter, directory: Path, memory: int) -> Mark:
        """What `count_part` returns and raises, in that process."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None
        try:
            pickle.dump((part, splitter, directory, memory), asked)
            asked.flush()
            found = pickle.load(answers)
        except (EOFError, BrokenPipeError):
            raise EEVEError(
                f"{part.shard.place}: the process that counted it ended with {self._process.wait()}; "
                "if memory ran out, lower memory_mb or workers"
            ) from None
        if isinstance(found, EEVEError):
            raise found
        return found

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """Close its pipes and wait for its end."""
        with contextlib.suppress(BrokenPipeError):  # what a dead one was not told
            self._process.__exit__(None, None, None)
        self._process.wait()


def _answer() -> None:
    """What a child does: count what comes on stdin, write marks or errors to stdout, until stdin ends."""
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        found: Mark | EEVEError
        try:
            found = count_part(*arguments)
        except EEVEError as error:
            found = error
        pickle.dump(found, answers)
        answers.flush()


def _on_ray(
    parts: Sequence[Part], splitter: WordSplitter, directory: Path, memory: int, workers: int
) -> Iterator[Mark]:
    """Count on a Ray cluster, `workers` parts at a time: yields the mark of each part that is finished."""
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
        shared = ray.put(splitter)
        remote = ray.remote(num_cpus=1, max_retries=2)(count_part)
        waiting = list(reversed(parts))
        running: list[ray.ObjectRef] = []
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


_Engine = Callable[[Sequence[Part], WordSplitter, Path, int, int], Iterator[Mark]]
ENGINES: dict[str, _Engine] = {"local": _locally, "ray": _on_ray}
"""Count parts (parts, splitter, directory, bytes of memory for each worker, workers); yields their marks."""


@contextlib.contextmanager
def _threads_take_turns() -> Iterator[None]:
    """Lets threads take turns every 0.1 ms.

    One that decompresses or counts needs Python for an instant only, and would wait 5 ms for it otherwise.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
