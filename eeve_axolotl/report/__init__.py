"""`axolotl eeve report`: a pipeline's directory in, `report/` out: Markdown, plots, one HTML file, a model card.

Reads JSON files only; needs neither axolotl nor torch. What is missing is shown as missing, never as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import replacing
from eeve_axolotl.report.collect import collect

FOLDER = "report"
MARKER = "<!-- Written by `axolotl eeve report`, which replaces this directory. -->"


@dataclass(frozen=True)
class Report:
    """Where the report is, what it lacks, and what became of the card beside the weights."""

    directory: Path
    missing: list[str]
    card: str


def write(directory: str | Path) -> Report:
    """Write the report on the pipeline whose `output` is `directory`, replacing an earlier one.

    The same files give the same bytes. Raises EEVEError if `directory` is no pipeline's, a file in it
    cannot be read or `report` in it is not ours.
    """
    pipeline = collect(directory)
    from eeve_axolotl.report import card, content, html, markdown, plots

    output = pipeline.directory / FOLDER
    _refuse_others(output)
    model_card = card.render(pipeline)
    with replacing(output, _is_ours) as beside:
        blocks = content.blocks(pipeline, plots.draw(pipeline, beside))
        (beside / "report.md").write_text(f"{MARKER}\n\n{markdown.render(blocks)}", encoding="utf-8")
        (beside / "report.html").write_text(html.render(blocks, "EEVE report", beside), encoding="utf-8")
        (beside / card.NAME).write_text(model_card, encoding="utf-8")
    return Report(output, pipeline.missing(), card.place(pipeline, model_card))


def _is_ours(path: Path) -> bool:
    from eeve_axolotl.report import card, plots

    return path.name in ("report.md", "report.html", card.NAME, *(f"{name}.png" for name in plots.PLOTS))


def _refuse_others(output: Path) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    ours = output / "report.md"
    if not (ours.is_file() and ours.read_text(encoding="utf-8", errors="replace").startswith(MARKER)):
        raise EEVEError(f"{output} is not a report of ours, so it is not replaced; move it out of the way")
