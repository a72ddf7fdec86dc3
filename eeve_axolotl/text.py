"""Which part of the text the stages of a chain read, as their settings and records say; what keeps them from reading on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl.args import EEVESettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import RECORD, STAGE_RECORD, read


def text_read(base_model: str | None) -> dict[str, Any] | None:
    """Which text the stage that made `base_model` had read, by its record; None where there is none."""
    if not base_model:
        return None
    places = [Path(base_model)]
    if places[0].name == "merged":  # by `axolotl merge-lora`, without a chain: the record is with the adapter
        places.append(places[0].parent)
    for place in places:
        record = read(place / RECORD, STAGE_RECORD)
        if record is not None:
            return record.get("text")
    return None


def text_spans(stages: Iterable[tuple[int, bool]]) -> list[tuple[int, int]]:
    """Where each stage of a chain begins to read the text and where it stops, in tokens from the text's beginning.

    Args:
        stages: tokens of each stage, and whether it begins at the start again (`eeve.text: again`).
    """
    spans: list[tuple[int, int]] = []
    for tokens, again in stages:
        start = spans[-1][1] if spans and not again else 0
        spans.append((start, start + tokens))
    return spans


def where_it_reads(cfg: Mapping[str, Any], settings: EEVESettings) -> str:
    """Where in the text the stages of a run will read, in words, as far as settings and records tell.

    Args:
        settings: the `eeve:` block of `cfg`.
    """
    if settings.text == "again" or is_streamed(cfg):
        return "each stage reads the text from its beginning"
    to = (text_read(cfg.get("base_model")) or {}).get("to")
    if to is None:
        return "reads the text from its beginning, and each stage on from where the one before stopped"
    return (
        f"reads on in the text after {to['sequences']:,} of {to['of']:,} sequences of pass {to['passes'] + 1}, where "
        f"{cfg['base_model']} stopped (another text, from its beginning)"
    )


def is_streamed(cfg: Mapping[str, Any]) -> bool:
    """Whether an Axolotl config has its text read as a stream, of which no position is known."""
    return bool(cfg.get("pretraining_dataset") or cfg.get("streaming"))


def check_text(cfg: Mapping[str, Any], settings: EEVESettings) -> None:
    """Raise EEVEError where stages cannot read on in one text, in whole batches.

    Args:
        settings: the `eeve:` block of `cfg`.
    """
    if is_streamed(cfg):
        comes_after = len(settings.schedule()) > 1 or text_read(cfg.get("base_model"))
        if settings.text == "continue" and comes_after:
            raise EEVEError(
                "a stage reads a stream from its beginning, and cannot go on where the stage before stopped; set "
                "`eeve.text: again` to read the same text in every stage, or name the text under `datasets` without "
                "`streaming`"
            )
        return
    for key in ("split_batches", "dispatch_batches"):
        if (cfg.get("accelerator_config") or {}).get(key):
            raise EEVEError(
                f"`accelerator_config.{key}` divides batches otherwise than the stage counts its text; remove it"
            )
