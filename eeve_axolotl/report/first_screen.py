"""What a report begins with: what was done, the headline figures, a sentence before and after, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eeve_axolotl.records import frozen_parts
from eeve_axolotl.report.blocks import (
    MISSING,
    Block,
    Bold,
    Bullets,
    Code,
    Figure,
    Heading,
    Inline,
    Paragraph,
    Table,
)
from eeve_axolotl.report.collect import PipelineData
from eeve_axolotl.report.figures import duration, number, total
from eeve_axolotl.report.sentence import sentence


def first_screen(pipeline: PipelineData, figures: Mapping[str, Figure]) -> list[Block]:
    """The blocks of the first screen, then a table of what is where."""
    missing = pipeline.missing()
    told: list[Block] = [Paragraph(Bold("Missing")), Bullets(missing)] if missing else []
    return [
        Heading("EEVE report", 1),
        Paragraph(_what_was_done(pipeline)),
        *_headline(pipeline),
        *_before_and_after(pipeline),
        *([figures["bits"]] if "bits" in figures else []),
        *told,
        *_places(pipeline),
    ]


def _what_was_done(pipeline: PipelineData) -> str:
    done = [stage for stage in pipeline.stages if stage.done]
    scripts = " and ".join((pipeline.manifest.get("settings") or {}).get("script") or [])
    what = f"{number(pipeline.new_tokens)} {scripts} tokens".replace("  ", " ")
    added = f"{what} were added to the base model's, and " if pipeline.new_tokens is not None else ""
    tokens, seconds = total([each.tokens for each in done]), total([each.seconds for each in done])
    on = f" on {number(tokens)} tokens" if tokens else ""
    within = f" in {duration(seconds)}" if seconds else ""
    said = f"{added}{len(done)} of {len(pipeline.stages)} stages were trained{on}{within}."
    return said[0].upper() + said[1:]


def _headline(pipeline: PipelineData) -> list[Block]:
    """Before and after, by text, and the proof that frozen rows did not move."""
    rows: list[Sequence[Inline]] = []
    known = pipeline.evaluated
    for name in pipeline.text_names if len(known) > 1 else []:
        one, other = known[0].text(name), known[-1].text(name)
        for key, what in (
            ("tokens_per_character", "tokens per character"),
            ("bits_per_byte", "bits per byte"),
        ):
            before, after = one.get(key), other.get(key)
            if before is not None and after is not None:
                rows.append([f"{name}, {what}", number(before, ".3f"), number(after, ".3f")])
    found: list[Block] = [Table(["", *(each.name for each in (known[0], known[-1]))], rows)] if rows else []
    freeze = [stage for stage in pipeline.stages if stage.record.get("fingerprint_before")]
    if freeze:
        proven = [stage for stage in freeze if all(frozen_parts(stage.record).values())]
        said = f"Frozen rows and layers are proven unchanged in {len(proven)} of the {len(freeze)} stages that freeze any."
        found.append(Paragraph(said if len(proven) == len(freeze) else Bold(said)))
    return found


def _before_and_after(pipeline: PipelineData) -> list[Block]:
    found = sentence(pipeline)
    if found is None:
        return []
    rows: list[Sequence[Inline]] = [
        [f"{name}: {len(pieces)} tokens", [each for piece in pieces for each in (Code(piece), " ")]]
        for name, pieces in (("before", found.before), ("after", found.after))
    ]
    return [Table(["", found.text], rows, left=2)]


def _places(pipeline: PipelineData) -> list[Block]:
    facts: list[Sequence[Inline]] = [
        ["Base model", Code(pipeline.base_model)],
        ["Tokenizer", Code(str(pipeline.tokenizer))],
        ["Weights", Code(str(pipeline.runs[-1].result)) if pipeline.runs else MISSING],
    ]
    return [
        Table(["", ""], facts, left=2),
        Paragraph(f"{MISSING} stands for what is missing: not done, not measured, or not said by any file."),
    ]
