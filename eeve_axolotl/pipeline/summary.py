"""The table at a chain's end: each stage's figures, and whether its frozen rows are what they were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline.runs import Run
from eeve_axolotl.records import (
    CONFIG,
    EMBEDDINGS,
    EVALUATION,
    FIGURES,
    MARK,
    MODEL_CONFIG,
    RECORD,
    RECORD_IF_ANY,
    frozen_parts,
    read,
)
from eeve_axolotl.stages import Rows, Stage
from eeve_axolotl.tables import markdown_table

SIDES = ("embed_tokens.weight", "lm_head.weight")
UNKNOWN = "?"


def table(output: Path, runs: list[Run]) -> str:
    """Markdown, columns aligned: the base, the extended model before training, and every stage that was evaluated."""
    files = sorted((output / EVALUATION).glob("*.json"))
    found = [each for path in files if (each := read(path, FIGURES))]
    evaluations = {each["name"]: each for each in found}
    texts = list(next(iter(evaluations.values()))["texts"]) if evaluations else []
    head = [
        "",
        "trains",
        *(f"{text} bits/byte" for text in texts),
        *(f"{text} tokens/char" for text in texts),
        "frozen rows unchanged",
    ]

    def row(name: str, trains: str, unchanged: str) -> list[str]:
        figures = evaluations.get(name, {}).get("texts", {})
        bits = [_figure(figures.get(text), "bits_per_byte", ".3f") for text in texts]
        length = [_figure(figures.get(text), "tokens_per_character", ".2f") for text in texts]
        return [name, trains, *bits, *length, unchanged]

    untrained = (("base", ""), ("extended", "nothing yet"))
    rows = [row(name, trains, "") for name, trains in untrained if name in evaluations]
    before = Path(runs[0].cfg["base_model"])
    for run in runs:
        for place, scheduled in zip(run.stages, run.settings.schedule(), strict=True):
            after = run.result if place.directory == run.output else place.directory
            stage = scheduled.resolved()
            unchanged = frozen_rows_unchanged(before, after, stage)
            if unchanged == UNKNOWN:
                unchanged = proven_by_record(place.directory)
            rows.append(row(f"stage {place.name}", stage.trains_in_words(), unchanged))
            before = after
    return markdown_table(head, rows, aligned=True)


def _figure(figures: Mapping | None, key: str, form: str) -> str:
    value = (figures or {}).get(key)
    return "" if value is None else format(value, form)


def frozen_rows_unchanged(before: Path, after: Path, stage: Stage) -> str:
    """Compare the saved embeddings of two checkpoints bit by bit.

    "yes" or "NO"; "-" where the stage freezes no rows; "?" where either checkpoint was not kept. Rows that
    `before` does not have yet (in stage 1, the new ones) are not compared. Where the two were saved in different types, the
    first is read in the second's; rows that differ then may have lost bits on the way, so that proves nothing.
    """
    import torch

    rows = dict(zip(SIDES, (stage.input_embeddings, stage.output_embeddings), strict=True))
    if all(trained is Rows.ALL for trained in rows.values()):
        return "-"
    mark = (read(after / CONFIG, MODEL_CONFIG) or {}).get(MARK) or {}
    for name, trained in rows.items():
        if trained is Rows.ALL:
            continue
        one, other = _matrix(before, name), _matrix(after, name)
        if one is None or other is None:
            return UNKNOWN
        frozen = min(len(one), mark.get("base_vocab_size", 0) if trained is Rows.NEW else len(one))
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[other.element_size()]
        as_read = one[:frozen].to(other.dtype)  # as the stage read what was saved in another type
        if not torch.equal(as_read.view(bits), other[:frozen].view(bits)):
            return "NO" if one.dtype == other.dtype else UNKNOWN
    return "yes"


def proven_by_record(directory: Path) -> str:
    """What a stage's record proves of its frozen rows where their weights were not kept.

    The record has a fingerprint of them before the first step and one after the last: "yes, by its record" if they are
    the same, "NO, by its record" if not, "?" where there is no record of frozen rows.
    """
    parts = frozen_parts(read(directory / RECORD, RECORD_IF_ANY) or {})
    frozen = [unmoved for part, unmoved in parts.items() if part in EMBEDDINGS]
    if not frozen:
        return UNKNOWN
    return f"{'yes' if all(frozen) else 'NO'}, by its record"


def _matrix(directory: Path, ending: str):
    """The matrix whose name ends so, from the weights in `directory`; None if they are not there."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(directory.glob("model*.safetensors")):
        try:
            with safe_open(path, "pt") as weights:
                for name in weights.keys():
                    if name.endswith(ending):
                        return weights.get_tensor(name)
        except SafetensorError as error:
            raise EEVEError(f"{path} holds no weights ({error}); put back what was saved there") from None
    if ending == SIDES[1] and (read(directory / CONFIG, MODEL_CONFIG) or {}).get("tie_word_embeddings"):
        return _matrix(directory, SIDES[0])  # tied: one matrix is both, and saved once
    return None
