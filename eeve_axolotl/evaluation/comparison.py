"""`axolotl eeve compare`: two evaluated models side by side, document by document. Is the difference between them one?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import FIGURES, read
from eeve_axolotl.report.collect import collect
from eeve_axolotl.report.figures import duration, number, total
from eeve_axolotl.tables import plain_table

RESAMPLES = 10_000
LEAST_DOCUMENTS = 10
"""With fewer, drawing documents anew says nothing of how others would differ."""


@dataclass(frozen=True)
class Evaluated:
    """A model's figures by text, and what training it took where that is known."""

    name: str
    texts: Mapping[str, Mapping]
    tokens: float | None = None
    seconds: float | None = None


def find(place: str | Path, model: str | None = None) -> Evaluated:
    """The evaluated model at `place`: a file of figures (`axolotl eeve evaluate --output`) or a pipeline's output.

    Args:
        model: of a pipeline, which of its models, by the name in its report ("base", "stage 3"); the last if not given.

    Raises EEVEError if there is none.
    """
    place = Path(place)
    if place.is_file():
        figures = read(place, FIGURES)
        return Evaluated(str(place), (figures or {}).get("texts") or {})
    pipeline = collect(place)
    names = [each.name for each in pipeline.evaluated]
    if not names:
        raise EEVEError(
            f"no model of {place} is evaluated; give its YAML an `evaluate:` block and run it again"
        )
    if model is not None and model not in names:
        raise EEVEError(f"{place} has no figures of {model!r}; it has those of {', '.join(names)}")
    chosen = model or names[-1]
    labels = [each.label for each in pipeline.stages]
    before = pipeline.stages[: labels.index(chosen) + 1] if chosen in labels else []
    found = next(each for each in pipeline.evaluated if each.name == chosen)
    return Evaluated(
        f"{place}, {chosen}",
        found.figures.get("texts") or {},
        total([each.tokens for each in before]),
        total([each.seconds for each in before]),
    )


@dataclass(frozen=True)
class Compared:
    """Bits per byte of two models on one text, and the first's less the second's with its 95 % interval.

    `interval` is None where the documents cannot be paired; `why_not` says why.
    """

    text: str
    first: float
    second: float
    interval: tuple[float, float] | None = None
    why_not: str = ""

    @property
    def difference(self) -> float:
        """Below zero: the first model needs fewer bits."""
        return self.first - self.second

    @property
    def verdict(self) -> str:
        """`first` or `second`, whichever needs fewer bits; "no difference" where the interval holds zero."""
        if self.interval is None:
            return f"not known: {self.why_not}"
        low, high = self.interval
        return "first" if high < 0 else "second" if low > 0 else "no difference"


def compare(first: Mapping[str, Mapping], second: Mapping[str, Mapping]) -> list[Compared]:
    """The texts of which both have figures, in the first's order. Raises EEVEError if there are none.

    Args:
        first, second: figures by text, as `axolotl eeve evaluate` writes them (`texts`).
    """
    names = [
        name
        for name in first
        if name in second and first[name].get("bits_per_byte") and second[name].get("bits_per_byte")
    ]
    if not names:
        raise EEVEError(
            f"the two have no text in common ({', '.join(first) or 'none'}; {', '.join(second) or 'none'}); evaluate both "
            "on texts of the same names"
        )
    return [_on_one(name, first[name], second[name]) for name in names]


def _on_one(name: str, first: Mapping, second: Mapping) -> Compared:
    bits = first["bits_per_byte"], second["bits_per_byte"]
    ours, theirs = first.get("documents"), second.get("documents")
    if not (ours and theirs):
        return Compared(
            name, *bits, why_not="evaluated by an earlier version, which kept no figures of documents"
        )
    if any(ours[key] != theirs[key] for key in ("sha256", "bytes")):
        return Compared(name, *bits, why_not="the two read different documents")
    if len(ours["bytes"]) < LEAST_DOCUMENTS:
        return Compared(name, *bits, why_not=f"fewer than {LEAST_DOCUMENTS} documents")
    return Compared(name, *bits, interval=interval(ours["bits"], theirs["bits"], ours["bytes"]))


def interval(
    first: list[float], second: list[float], sizes: list[int], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % interval of the difference in bits per byte, by the paired bootstrap over documents.

    Args:
        first, second: bits of each document under two models.
        sizes: bytes of each document.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13 (the percentile interval).
    """
    differences = torch.tensor(first, dtype=torch.float64) - torch.tensor(second, dtype=torch.float64)
    of_bytes = torch.tensor(sizes, dtype=torch.float64)
    chance = torch.Generator().manual_seed(0)
    count = len(sizes)
    means = [
        (differences[drawn].sum() / of_bytes[drawn].sum())
        for drawn in (torch.randint(count, (count,), generator=chance) for _ in range(resamples))
    ]
    low, high = torch.quantile(torch.stack(means), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def told(first: str | Path, second: str | Path, model: str | None = None, as_json: bool = False) -> str:
    """What `axolotl eeve compare` prints of two places (see `find`)."""
    if model is not None and Path(first).is_file() and Path(second).is_file():
        raise EEVEError(
            "--model names a model of a pipeline, and A and B are files of one model each; leave it out"
        )
    sides = find(first, model), find(second, model)
    found = compare(sides[0].texts, sides[1].texts)
    return json.dumps(as_dict(*sides, found), ensure_ascii=False) if as_json else table(*sides, found)


def table(first: Evaluated, second: Evaluated, found: list[Compared]) -> str:
    """What both needed, and the difference text by text with its interval, as text for a terminal."""
    rows: list[tuple[object, ...]] = [("", "trained on tokens", "in")]
    for letter, side in (("A", first), ("B", second)):
        rows.append((f"{letter}: {side.name}", number(side.tokens), duration(side.seconds)))
    lines: list[tuple[object, ...]] = [
        ("bits per byte", "A", "B", "A less B", "95 % interval", "fewer bits"),
    ]
    for each in found:
        bounds = "" if each.interval is None else "{:+.4f} to {:+.4f}".format(*each.interval)
        verdict = {"first": "A", "second": "B"}.get(each.verdict, each.verdict)
        lines.append(
            (each.text, f"{each.first:.4f}", f"{each.second:.4f}", f"{each.difference:+.4f}", bounds, verdict)
        )
    return f"{plain_table(rows, right=(1, 2))}\n\n{plain_table(lines, right=(1, 2, 3))}"


def as_dict(first: Evaluated, second: Evaluated, found: list[Compared]) -> dict:
    """The same for JSON."""
    return {
        "first": {"name": first.name, "tokens": first.tokens, "seconds": first.seconds},
        "second": {"name": second.name, "tokens": second.tokens, "seconds": second.seconds},
        "texts": {
            each.text: {
                "first": each.first,
                "second": each.second,
                "difference": each.difference,
                "interval": each.interval,
                "verdict": each.verdict,
            }
            for each in found
        },
    }
