"""How surprising a text is to a model of good text: a KenLM model, or one trained here on the user's own.

The paper filters by perplexity (3.1) and publishes neither model nor threshold. `CharacterModel` is a plain
character n-gram model: it knows spelling and short-range grammar, enough to tell running text from broken
encodings, number columns, keyword heaps and other languages, and no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.filters.base_filter import BaseFilter

from eeve_axolotl.corpus.text import n_gram_hashes
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import writing

ORDER = 5  # characters of an n-gram; a Hangul character is a syllable, so this spans a word or two
LOOK = 2000  # characters of a document that are scored; more changes little and costs time


class CharacterModel:
    """Character n-gram probabilities with Witten-Bell interpolation, in sorted arrays of hashes.

    For each order: the n-grams seen and how often; their contexts, how often and before how many
    different characters.
    """

    def __init__(self, orders: list[dict[str, np.ndarray]], characters: int):
        self.orders, self.characters = orders, characters

    @classmethod
    def train(cls, texts: Iterable[str], order: int = ORDER, limit: int = 20_000_000) -> CharacterModel:
        """Train on the first `limit` characters of `texts`. Raises EEVEError if there are none."""
        parts, length = [], 0
        for text in texts:
            parts.append(text)
            length += len(text) + 1
            if length >= limit:
                break
        points = _points("\n".join(parts)[:limit])
        if len(points) < order:
            raise EEVEError("the good text for the perplexity filter is empty; give text to learn from")
        orders = []
        for n in range(1, order + 1):
            grams, first, times = np.unique(n_gram_hashes(points, n), return_index=True, return_counts=True)
            contexts, inverse = np.unique(n_gram_hashes(points, n - 1)[first], return_inverse=True)
            orders.append(
                {
                    "grams": grams,
                    "times": times.astype(np.float32),
                    "contexts": contexts,
                    "total": np.bincount(inverse, times).astype(np.float32),
                    "kinds": np.bincount(inverse).astype(np.float32),
                }
            )
        return cls(orders, len(orders[0]["grams"]))

    def perplexity(self, text: str) -> float:
        """Perplexity per character of the first LOOK characters of `text`; infinite for an empty text."""
        points = _points(text[:LOOK])
        if not len(points):
            return math.inf
        p = np.full(len(points), 1 / (self.characters + 1))
        for n, order in enumerate(self.orders, 1):
            if len(points) < n:
                break
            context = n_gram_hashes(points, n - 1)[: len(points) - n + 1]
            total = _look_up(order["contexts"], order["total"], context)
            kinds = _look_up(order["contexts"], order["kinds"], context)
            times = _look_up(order["grams"], order["times"], n_gram_hashes(points, n))
            here, seen = p[n - 1 :], total > 0
            here[seen] = (times[seen] + kinds[seen] * here[seen]) / (total[seen] + kinds[seen])
        return float(np.exp(-np.log(p).mean()))

    def save(self, path: str | Path) -> None:
        """Write the model to the .npz file `path`."""
        arrays = {f"{name}{n}": array for n, order in enumerate(self.orders) for name, array in order.items()}
        arrays |= {"characters": np.array(self.characters), "order": np.array(len(self.orders))}
        with writing(Path(path)) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy: a name may be that of savez's own argument

    @classmethod
    def load(cls, path: str | Path) -> CharacterModel:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            orders = [
                {name: arrays[f"{name}{n}"] for name in ("grams", "times", "contexts", "total", "kinds")}
                for n in range(int(arrays["order"]))
            ]
            return cls(orders, int(arrays["characters"]))


def _points(text: str) -> np.ndarray:
    """The code points of `text`, scrambled so that sums of them do not collide."""
    points = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    return (points + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 for one that is not among the sorted `keys`."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0.0)


class KenLM:
    """A KenLM model (`pip install eeve-axolotl[kenlm]`), over words or over the pieces of a SentencePiece model.

    Raises EEVEError if kenlm is not installed or a file cannot be read.
    """

    def __init__(self, path: str | Path, sentencepiece: str | Path | None = None):
        try:
            import kenlm
        except ImportError:
            raise EEVEError(
                "the perplexity filter names a KenLM model, but kenlm is not installed; "
                "`pip install 'eeve-axolotl[kenlm]'`, or give `good_text` instead"
            ) from None
        for file in (path, sentencepiece):
            if file and not Path(file).is_file():
                raise EEVEError(f"{file} (perplexity filter) does not exist; give the path of the model")
        try:
            self._model = kenlm.Model(str(path))
        except OSError as error:
            raise EEVEError(f"{path} is not a KenLM model ({error}); give an ARPA or a binary file") from None
        self._pieces = None
        if sentencepiece:
            from sentencepiece import SentencePieceProcessor

            self._pieces = SentencePieceProcessor(model_file=str(sentencepiece))

    def perplexity(self, text: str) -> float:
        """Perplexity per word (or piece), line by line, of the first LOOK characters of `text`."""
        score = words = 0.0
        for line in text[:LOOK].splitlines():
            if not line.strip():
                continue
            pieces = self._pieces.encode(line, out_type=str) if self._pieces else line.split()
            score += self._model.score(" ".join(pieces))
            words += len(pieces) + 1  # KenLM scores the end of the sentence too
        return 10 ** (-score / words) if words else math.inf


class PerplexityFilter(BaseFilter):
    """Keep documents of at most `maximum` perplexity under the model that `load` returns.

    The model is loaded when first needed, so that the filter travels to other processes light.
    """

    name = "perplexity"

    def __init__(self, load: Callable[[], CharacterModel | KenLM], maximum: float):
        super().__init__()
        self.load, self.maximum = load, maximum
        self._model: CharacterModel | KenLM | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Whether `doc` is kept, with the reason if not."""
        if self._model is None:
            self._model = self.load()
        return self._model.perplexity(doc.text) <= self.maximum or (False, "high perplexity")


def train_with_threshold(texts: Iterable[str], quantile: float) -> tuple[CharacterModel, float]:
    """A model of nine tenths of `texts`, and the perplexity that the share `quantile` of the rest stays below.

    Raises EEVEError for fewer than 20 texts: a tenth of them says nothing about a quantile.
    """
    texts = list(texts)
    if len(texts) < 20:
        raise EEVEError(
            f"the good text for the perplexity filter has {len(texts)} documents; give at least 20, or more text"
        )
    model = CharacterModel.train(text for i, text in enumerate(texts) if i % 10)
    return model, float(np.quantile([model.perplexity(text) for text in texts[::10]], quantile))
