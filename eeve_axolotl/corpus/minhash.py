"""Documents that are alike, by MinHash: datatrove's signatures, buckets and files, computed by compiled code and NumPy.

`Signatures` and `Buckets` write what datatrove's first two steps write, byte for byte, but for the hash of a word:
datatrove's own does not run with xxhash 4. Its third step, which joins pairs to clusters, goes on from their files.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from datatrove.data import Document as DatatroveDocument
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig, simplify_text

from eeve_axolotl.corpus.kernels import passages as kernels
from eeve_axolotl.corpus.kernels.characters import simple
from eeve_axolotl.corpus.text import WORDS, n_gram_hashes, small_points, word_hashes

# Diacritics are left alone: taking them off costs most of the time, and Hangul has none. datatrove hashes no word here;
# told that it would by xxhash, it reads what every installed package says of itself to find that one: 0.3 seconds.
MINHASH = MinhashConfig(
    norm_config=TextNormConfig(norm_unicode_diacritics=False), hash_config=HashConfig(64, hash_fc="sha1")
)

ROW = np.dtype([("signature", "<u8", (MINHASH.hashes_per_bucket,)), ("document", "<u4")])
"""What a bucket's file has of a document, as datatrove packs it."""

_AT_A_TIME = 1024  # documents whose signatures are in memory
_PART = 1 << 19  # rows of a bucket that are compared at once, about


class Signatures(MinhashDedupSignature):
    """The signatures of a task's documents: for each bucket a file of ROWs, sorted."""

    def __init__(self, folder: Path, config: MinhashConfig, language: WORDS.__class__):  # type: ignore[name-defined]
        super().__init__(str(folder), config=config, language=language)
        self.folder = folder

    def get_shingles(self, text: str) -> np.ndarray:
        """The hashes (uint64) of all runs of words of the text in datatrove's simple form."""
        found, long = kernels.shingles(small_points(text), simple(), self.config.n_grams)
        if not long:
            runs: np.ndarray = found
            return runs
        words = WORDS.word_tokenize(simplify_text(text, self.config.norm_config))
        return n_gram_hashes(word_hashes(words), self.config.n_grams)

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> None:
        """Write the signatures of `data`, document by document, then sort each bucket's."""
        files = [
            self.folder / f"bucket_{bucket:03d}" / f"{rank:05d}.minhash.sig"
            for bucket in range(self.config.num_buckets)
        ]
        with self.track_time():
            with ExitStack() as stack:
                buckets: list[BinaryIO] = []
                for file in files:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    buckets.append(stack.enter_context(file.open("wb")))
                self._write(data, buckets)
            for file in files:
                _sort(file)

    def _write(self, data: Iterable[DatatroveDocument], buckets: list[BinaryIO]) -> None:
        first, second = (parameters.reshape(-1) for parameters in self.parameters)
        found: list[np.ndarray] = []
        numbers: list[int] = []

        def flush() -> None:
            each = np.array(found).reshape(len(found), len(buckets), -1)
            for number, bucket in enumerate(buckets):
                rows = np.empty(len(found), ROW)
                rows["signature"], rows["document"] = each[:, number], numbers
                bucket.write(rows.tobytes())
            found.clear()
            numbers.clear()

        for number, document in enumerate(data):
            shingles = self.get_shingles(document.text)
            if len(shingles):
                found.append(kernels.signature(shingles, first, second))
                numbers.append(number)
            if len(found) == _AT_A_TIME:
                flush()
        if found:
            flush()


def _sort(file: Path) -> None:
    """Sort a bucket's file, in which the documents are in order."""
    rows = np.fromfile(file, ROW)
    rows[_order(rows["signature"])].tofile(file)


def _order(signatures: np.ndarray) -> np.ndarray:
    """What sorts signatures (uint64, a row each) and leaves equal ones in their order."""
    order = np.argsort(signatures[:, 0], kind="stable")
    first = signatures[order, 0]
    equal = first[1:] == first[:-1]
    if equal.any():  # few are
        at = np.flatnonzero(np.append(equal, False) | np.insert(equal, 0, False))
        order[at] = order[at][np.lexsort(signatures[order[at]].T[::-1])]
    return order


class Buckets(PipelineStep):
    """The pairs of documents with the same signature in one bucket, which is the task."""

    type, name = "dedup", "buckets"

    def __init__(self, signatures: Path, folder: Path):
        super().__init__()
        self.signatures, self.folder = signatures, folder

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> None:
        """Write file and number of both documents of each pair, one after the other in the order of their signatures."""
        files = sorted((self.signatures / f"bucket_{rank:03d}").glob("*.minhash.sig"))
        tables = [_Table(file) for file in files if file.stat().st_size]
        parts = 1 + sum(map(len, tables)) // _PART
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{rank:05d}_00.dups").open("wb") as pairs, self.track_time():
            for part in range(parts):
                low, high = (2**61 * bound // parts for bound in (part, part + 1))
                pieces = [table.between(low, high) for table in tables]
                if pieces:
                    pairs.write(_pairs(pieces, [table.number for table in tables]).tobytes())


class _Table:
    """A file of ROWs that are sorted."""

    def __init__(self, file: Path):
        self.number = int(file.name.removesuffix(".minhash.sig"))
        self._rows = np.memmap(file, ROW, "r")

    def __len__(self) -> int:
        return len(self._rows)

    def between(self, low: int, high: int) -> np.ndarray:
        """The rows whose first hash is at least `low` and below `high`."""

        def place(bound: int) -> int:
            return bisect_left(range(len(self)), bound, key=lambda row: int(self._rows["signature"][row, 0]))

        return np.array(self._rows[place(low) : place(high)])


def _pairs(pieces: list[np.ndarray], files: list[int]) -> np.ndarray:
    """File and number of both documents of each pair of equal neighbours: uint32 (pairs, 4)."""
    rows = np.concatenate(pieces)
    file = np.repeat(np.array(files, "<u4"), [len(piece) for piece in pieces])
    order = _order(rows["signature"])
    rows, place = rows[order], np.stack([file[order], rows["document"][order]], 1)
    equal = (rows["signature"][1:] == rows["signature"][:-1]).all(1)
    pairs: np.ndarray = np.concatenate([place[:-1][equal], place[1:][equal]], 1)
    return pairs
