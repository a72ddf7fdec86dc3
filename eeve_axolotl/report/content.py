"""What the report says, as blocks: sections in order, each from the data alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from eeve_axolotl.records import frozen_parts
from eeve_axolotl.report.blocks import (
    MISSING,
    Block,
    Bold,
    Bullets,
    Code,
    Figure,
    Fold,
    Heading,
    Inline,
    Paragraph,
    Table,
)
from eeve_axolotl.report.collect import LOSS_WINDOW, MATRICES, Evaluation, PipelineData, StageData
from eeve_axolotl.report.figures import duration, number
from eeve_axolotl.report.first_screen import first_screen
from eeve_axolotl.report.plots import before_and_after
from eeve_axolotl.stages import Layers, Rows, Stage

LOSSES = (
    "Tokens are steps × batch × sequence length, padding counted. First and last loss are means of the first and the last "
    f"tenth of a stage's logged losses, at most {LOSS_WINDOW}."
)
_SHOWN = 3  # neighbours of a token in the table


def blocks(pipeline: PipelineData, figures: Mapping[str, Figure]) -> list[Block]:
    """The whole report."""
    sections = (
        first_screen(pipeline, figures),
        _stages(pipeline, figures),
        _texts(pipeline),
        _new_tokens(pipeline),
        _norms(pipeline, figures),
        _neighbours(pipeline, figures),
        _samples(pipeline),
        _fingerprints(pipeline),
        _tokenizer(pipeline),
        _settings(pipeline),
    )
    return [block for section in sections for block in section]


def trains(stage: StageData) -> str:
    """What a stage trains, in words, by its record."""
    what = stage.record.get("trains")
    if not what:
        return MISSING
    try:
        inputs, outputs = Rows(what["input_embeddings"]), Rows(what["output_embeddings"])
        layers = Layers(what["internal_layers"])
    except (KeyError, ValueError):
        return MISSING
    words = Stage(stage.name, inputs, outputs, layers).trains_in_words() or "nothing"
    return f"{words} by QLoRA" if layers is Layers.QLORA else words  # layers are told last


def stages_table(stages: Sequence[StageData]) -> Table:
    """Stages with what trained, steps, tokens, time and loss."""
    head = ["stage", "trains", "steps", "tokens", "time", "first loss", "last loss", "parameters trained",
            "optimiser state"]  # fmt: skip
    rows = []
    for stage in stages:
        first, last = stage.first_and_last_loss or (None, None)
        rows.append([
            stage.name, trains(stage) if stage.done else "not done", number(stage.steps), number(stage.tokens),
            duration(stage.seconds), number(first, ".3f"), number(last, ".3f"),
            number(stage.record.get("parameters_trained")), _megabytes(stage.record.get("optimizer_state_bytes")),
        ])  # fmt: skip
    return Table(head, rows, left=2)


def texts_table(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Table:
    """Bits per byte and tokens per character of each text, and how much of the base's English is kept."""
    kept = [name for name in names if any(name in each.retention for each in evaluations)]
    head = ["model", *(f"{name}, bits per byte" for name in names),
            *(f"{name}, tokens per character" for name in names), *(f"{name} kept" for name in kept)]  # fmt: skip
    rows = [
        [
            each.name,
            *(number(each.text(name).get("bits_per_byte"), ".3f") for name in names),
            *(number(each.text(name).get("tokens_per_character"), ".3f") for name in names),
            *(number(each.retention.get(name), ".1%") for name in kept),
        ]
        for each in evaluations
    ]
    return Table(head, rows)


def new_tokens_table(evaluations: Sequence[Evaluation], name: str) -> Table | None:
    """How well new tokens are predicted in a text; None where no model says."""
    rows = []
    for each in evaluations:
        figures = each.text(name).get("new_tokens") or {}
        rows.append([
            each.name, number(figures.get("targets")), number(figures.get("accuracy"), ".1%"),
            number(figures.get("first_subword_instead"), ".1%"), number(figures.get("share_of_predictions"), ".1%"),
        ])  # fmt: skip
    if all(cell == MISSING for row in rows for cell in row[1:]):
        return None
    return Table(
        ["model", "new tokens to predict", "predicted", "first subword instead", "new among predictions"],
        rows,
    )


def _stages(pipeline: PipelineData, figures: Mapping[str, Figure]) -> list[Block]:
    shown = [figures[name] for name in ("loss", "time") if name in figures]
    return [
        Heading("Stages"),
        stages_table(pipeline.stages),
        Paragraph(LOSSES),
        *shown,
    ]


def _texts(pipeline: PipelineData) -> list[Block]:
    if not pipeline.evaluated:
        return [Heading("Held-out texts"), Paragraph("No model has been evaluated.")]
    texts = [[name, ": ", Code(str(path))] for name, path in pipeline.texts.items()]
    kept = any(each.retention for each in pipeline.evaluated)
    return [
        Heading("Held-out texts"),
        texts_table(pipeline.evaluations, pipeline.text_names),
        *([Paragraph("Kept: the base model's bits per byte over this model's; below 100% is a loss.")] if kept else []),
        *([Bullets(texts)] if texts else []),
    ]  # fmt: skip


def _new_tokens(pipeline: PipelineData) -> list[Block]:
    found: list[Block] = []
    for name in pipeline.text_names:
        table = new_tokens_table(pipeline.evaluations, name)
        if table:
            found += [Heading(name, 3), table]
    if not found:
        return []
    words = (
        "Predicted: the model's first choice is the new token. First subword instead: it is the base "
        "tokenizer's first subword of it. New among predictions: the share of all first choices that are new tokens."
    )
    return [Heading("New tokens"), Paragraph(words), *found]


def _norms(pipeline: PipelineData, figures: Mapping[str, Figure]) -> list[Block]:
    if "norms" not in figures:
        return []
    rows = [
        [each.name, *(_mean_and_spread(each.row_norms(matrix, which)) for matrix in MATRICES for which in ("old", "new"))]
        for each in pipeline.evaluations
    ]  # fmt: skip
    head = ["model", *(f"{title}, {which} rows" for title in MATRICES.values() for which in ("old", "new"))]
    return [
        Heading("Norms of rows"),
        Table(head, rows),
        Paragraph("Mean L2 norm ± standard deviation."),
        figures["norms"],
    ]


def _mean_and_spread(row: Mapping) -> str:
    mean, spread = row.get("mean_norm"), row.get("std_norm")
    return number(mean, ".4g") + (f" ± {spread:.2g}" if mean is not None and spread is not None else "")


def _neighbours(pipeline: PipelineData, figures: Mapping[str, Figure]) -> list[Block]:
    known = [each for each in pipeline.evaluations if each.neighbours]
    if not known:
        return []
    ends = before_and_after(pipeline.evaluations) or (known[0],)
    tokens = dict.fromkeys(token for each in ends for token in each.neighbours)
    rows = [
        [Code(token), number(pipeline.token_ids.get(token), "d"),
         *(_near(each.neighbours.get(token)) for each in ends)]
        for token in tokens
    ]  # fmt: skip
    return [
        Heading("Neighbours of new tokens"),
        Table(["new token", "id", *(each.name for each in ends)], rows, left=4),
        Paragraph("The tokens whose input rows are nearest, with the cosine."),
        *([figures["neighbours"]] if "neighbours" in figures else []),
    ]


def _near(found: Sequence | None) -> Inline:
    if not found:
        return MISSING
    parts: list[str] = []
    for token, cosine in found[:_SHOWN]:
        parts += [", " if parts else "", Code(token), f" {cosine:.2f}"]
    return parts


def _samples(pipeline: PipelineData) -> list[Block]:
    known = [each for each in pipeline.evaluations if each.samples]
    prompts = dict.fromkeys(sample["prompt"] for each in known for sample in each.samples)
    if not prompts:
        return []
    ends = [known[0], known[-1]] if len(known) > 1 else known
    between = known[1:-1]
    table = Table(["prompt", *(each.name for each in ends)], _written(prompts, ends), left=1 + len(ends))
    found: list[Block] = [Heading("Samples"), table]
    if between:
        rows = [
            [each.name, sample["prompt"], sample["text"], number(sample.get("new_token_share"), ".0%")]
            for each in between
            for sample in each.samples
        ]
        found.append(
            Fold(
                "The models between", [Table(["model", "prompt", "continuation", "new tokens"], rows, left=3)]
            )
        )
    return found


def _written(prompts: Iterable[str], models: Sequence[Evaluation]) -> list[list[Inline]]:
    """A row for each prompt: what each of the models wrote, side by side, and how much of it is new tokens."""

    def of(model: Evaluation, prompt: str) -> str:
        sample = next((each for each in model.samples if each["prompt"] == prompt), None)
        if sample is None:
            return MISSING
        share = sample.get("new_token_share")
        return sample["text"] + (f" ({share:.0%} new tokens)" if share else "")

    return [[Bold(prompt), *(of(model, prompt) for model in models)] for prompt in prompts]


def _fingerprints(pipeline: PipelineData) -> list[Block]:
    rows = []
    for stage in pipeline.stages:
        before = stage.record.get("fingerprint_before") or {}
        after = stage.record.get("fingerprint_after") or {}
        for block, same in frozen_parts(stage.record).items():
            one, other = before.get(block), after.get(block)
            counts = stage.record.get(block) or {}
            rows.append([
                stage.name, block.replace("_", " "), number(counts.get("rows_frozen")),
                number(counts.get("rows_trained")), Code(one) if one else MISSING,
                "the same" if same else Code(other) if other else MISSING,
                "unchanged" if same else Bold("CHANGED") if one and other else MISSING,
            ])  # fmt: skip
    if not rows:
        return []
    head = ["stage", "part", "rows frozen", "rows trained", "fingerprint before", "after", "frozen part"]
    return [
        Heading("Frozen rows"),
        Paragraph("Checksums of all that a stage freezes, before its first step and after its last."),
        Table(head, rows, left=7),
    ]


def _tokenizer(pipeline: PipelineData) -> list[Block]:
    manifest = pipeline.manifest
    if not manifest:
        return []
    settings, corpus = manifest.get("settings") or {}, manifest.get("corpus") or {}
    words = manifest.get("tokens_in_words") or {}
    facts = [
        ["Base tokenizer", Code(manifest["base"]) if "base" in manifest else MISSING],
        ["Vocabulary", f"{number(manifest.get('base_vocab_size'))} → {number(manifest.get('vocab_size'))}"],
        ["Scripts", ", ".join(settings.get("script") or []) or MISSING],
        ["Least count in the corpus", number(manifest.get("min_count"))],
        ["New tokens below it", _below(manifest.get("rare"))],
        ["Corpus", f"{number(corpus.get('documents'))} documents, {_megabytes(corpus.get('bytes'))}"],
        ["Tokens in its words", f"{number(words.get('base'))} → {number(words.get('extended'))}"],
        ["Unreachable new tokens", number(manifest.get("unreachable"))],
    ]
    return [Heading("Tokenizer"), Table(["", ""], facts, left=2)]


def _below(rare: Mapping[str, int] | None) -> str:
    """New tokens below the threshold, and that letters are in by how often the text has them, inside longer tokens too."""
    if rare is None:
        return MISSING
    letters, never = rare.get("letters", 0), rare.get("letters_never_alone", 0)
    others = sum(rare.get(key, 0) for key in ("beginnings_of_letters", "allowed", "others"))
    return (
        f"{number(letters)} letters of longer tokens ({number(never)} never alone), {number(others)} others"
    )


def _settings(pipeline: PipelineData) -> list[Block]:
    with_versions = [stage for stage in pipeline.stages if stage.versions]
    with_settings = [stage for stage in pipeline.stages if stage.settings]
    found: list[Block] = []
    if with_versions:
        versions = _compared([(stage.name, stage.versions) for stage in with_versions])
        found += [Heading("Versions"), Fold("Libraries", versions)]
    if with_settings:
        shown = [(stage.name, stage.settings) for stage in with_settings]
        found += [Heading("Settings"), Fold("Every key that Axolotl ran with", _compared(shown))]
    return found


def _compared(columns: Sequence[tuple[str, Mapping]]) -> list[Block]:
    """What all have in common as one table, and what differs as another with a column each."""
    keys = dict.fromkeys(key for _, values in columns for key in values)
    alike = [key for key in keys if len({_plain(values.get(key, MISSING)) for _, values in columns}) == 1]
    names = ", ".join(name for name, _ in columns)
    found: list[Block] = []
    if alike:
        rows = [[Code(key), Code(_plain(columns[0][1][key]))] for key in alike]
        found.append(Table(["all stages" if len(columns) > 1 else f"stage {names}", ""], rows, left=2))
    if len(alike) < len(keys):
        apart: list[list[Inline]] = [
            [Code(key), *(Code(_plain(values[key])) if key in values else MISSING for _, values in columns)]
            for key in keys
            if key not in alike
        ]
        found.append(Table(["", *(f"stage {name}" for name, _ in columns)], apart, left=1 + len(columns)))
    return found


def _plain(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _megabytes(size: float | None) -> str:
    return MISSING if size is None else f"{size / 1e6:,.2f} MB"
