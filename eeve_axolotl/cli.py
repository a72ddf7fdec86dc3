"""`axolotl eeve ...`: thin commands. Heavy imports stay inside the commands."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.options import DTYPE, asked, named, set_keys
from eeve_axolotl.plainly import stdout_kept, told_plainly
from eeve_axolotl.version import __version__


@click.group()
@click.version_option(__version__, prog_name="eeve-axolotl")
def eeve() -> None:
    """Teach a model a new language's vocabulary, the EEVE way."""


@eeve.command()
@click.argument("directory", type=click.Path(file_okay=False), metavar="DIR")
@click.option("--base", help="The base model: a directory, or its name on the hub.")
@click.option(
    "--corpus", multiple=True, metavar="PATH", help="Text in the new language: a file, a folder, a pattern."
)
@click.option("--language", help="The new language: a code or a name (ko, Korean).")
@click.option("--script", multiple=True, help="Its Unicode script, where the language does not say it.")
@click.option(
    "--keep",
    multiple=True,
    metavar="NAME=PATH",
    help="Text in a language that the base knows (English=./english).",
)
@click.option("--column", "columns", multiple=True, help="Columns that hold text.  [default: text]")
@click.option(
    "--gpus", type=click.IntRange(0), help="How many GPUs train; 0 for a CPU.  [default: those here]"
)
@click.option("--gpu", help="Which: h100-80gb, rtx-4090-24gb, ...; an unknown name lists them.")
@click.option("--memory", type=click.FloatRange(1), help="GB of one GPU, where its name is not known.")
@click.option("--new-tokens", type=click.IntRange(1), default=8_960, show_default=True, help="At most.")
@click.option("--steps", type=click.IntRange(1), default=400, show_default=True, help="Of a stage, at most.")
@click.option("--sequence-len", type=click.IntRange(16), help="Tokens.  [default: the base's, at most 4096]")
@click.option(
    "--global-batch", type=click.IntRange(1), default=256, show_default=True, help="Sequences a step."
)
@click.option(
    "--start/--no-start", default=True, help="Whether new output rows start from text.  [default: start]"
)
@click.option("--short", is_flag=True, help="Stage 6 alone instead of seven stages.")
@told_plainly
def init(directory: str, base: str | None, corpus: tuple[str, ...], **others: Any) -> None:
    """Write a project into DIR that runs as it is: tokenizer, corpus, stages and pipeline for a base, a text and GPUs."""
    from eeve_axolotl.project.wanted import Wanted

    if base is None:
        base = asked("the base model, a directory or its name on the hub", "--base")
    if not corpus:
        corpus = (asked("text in the new language, a file or a folder", "--corpus"),)
    if not (others["language"] or others["script"]):
        others["language"] = asked("the new language, a code or a name", "--language")
    wanted = Wanted(Path(directory), base, corpus, **others)
    if wanted.gpu:
        from eeve_axolotl.planner import gpus

        gpus.find(wanted.gpu)  # before the heavy imports
    with stdout_kept():
        from eeve_axolotl.project.make import make
        from eeve_axolotl.project.told import told

        lines = list(told(make(wanted)))
    for line in lines:
        click.echo(line)


@eeve.command()
@click.argument("config", type=click.Path())
@set_keys
@told_plainly
def tokenizer(config: str, changes: tuple[str, ...]) -> None:
    """Extend a tokenizer with a corpus's tokens, as CONFIG says."""
    from eeve_axolotl.settings import read_yaml
    from eeve_axolotl.tokenizer.build import build
    from eeve_axolotl.tokenizer.settings import TokenizerSettings

    settings = read_yaml(config, TokenizerSettings, changes)
    manifest = build(settings)
    counts = manifest["tokens_in_words"]
    click.echo(
        f"{settings.output}: {manifest['vocab_size'] - manifest['base_vocab_size']:,} new tokens, "
        f"{manifest['unreachable']} unreachable; the corpus's {', '.join(settings.script)} words take "
        f"{counts['base'] / counts['extended']:.2f}x fewer tokens"
    )


@eeve.command()
@click.argument("tokenizers_and_text", nargs=-1, metavar="[TOKENIZER]... [TEXT]")
@click.option(
    "--file", type=click.Path(), help="A file with the text, instead of TEXT; - for standard input."
)
@told_plainly
def tokens(tokenizers_and_text: tuple[str, ...], file: str | None) -> None:
    """Show how tokenizers cut TEXT: token by token, new ones marked, and their numbers side by side.

    TOKENIZER is a directory, a file or a hub name; several are compared. One that was extended is compared with its base.
    Without any it is the one of ours at hand.
    """
    from rich.console import Console

    from eeve_axolotl.tokenizer.shown import opened, show

    names = list(tokenizers_and_text)
    if file is not None:
        with click.open_file(file, encoding="utf-8") as lines:
            text = lines.read()
    elif names:
        text = names.pop()
    else:
        raise EEVEError("there is no text; give it last, or --file FILE")
    show(opened(names), text, Console(soft_wrap=True, highlight=False))


@eeve.command()
@click.argument("config", type=click.Path())
@set_keys
@told_plainly
def corpus(config: str, changes: tuple[str, ...]) -> None:
    """Filter text, choose documents for the new tokens, split and write shards, as CONFIG says."""
    try:
        from eeve_axolotl.corpus.build import build
        from eeve_axolotl.corpus.settings import CorpusSettings
    except ModuleNotFoundError as error:
        raise EEVEError(f"{error.name} is not installed; `pip install 'eeve-axolotl[corpus]'`") from None
    from eeve_axolotl.settings import read_yaml

    settings = read_yaml(config, CorpusSettings, changes)
    output = build(settings)
    if settings.executor.kind == "slurm":
        click.echo(f"queued; {output} appears when the last job has run")
    else:
        click.echo(f"{output}: see {output / 'README.md'} for what was kept, removed and chosen")


@eeve.command()
@click.argument("config", type=click.Path())
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("--from", "begin", metavar="STAGE", help="Train this stage and those after it again.")
@set_keys
@told_plainly
def run(config: str, dry_run: bool, begin: str | None, changes: tuple[str, ...]) -> None:
    """Run a whole pipeline: tokenizer, corpus, start, stages, merges, evaluation, report. Run again, it continues."""
    from eeve_axolotl.pipeline.chain import Chain
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.pipeline.tasks import print_tasks
    from eeve_axolotl.settings import read_yaml

    chain = Chain(config, read_yaml(config, PipelineSettings, changes), changes=changes)
    print_tasks(chain.tasks, begin)
    if dry_run:
        chain.check_unchanged(chain.tasks.stages_from(begin))
    else:
        chain.run(begin)


@eeve.command()
@click.argument("model")
@click.option("--config", type=click.Path(), help="A pipeline YAML whose `evaluate:` block to use.")
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="NAME=FILE",
    callback=named,
    help="A held-out text; may be given again.",
)
@click.option("--tokenizer", help="Directory of the tokenizer, if it is not the model's own.")
@click.option("--output-rows", help="Rule by which rows that the model lacks start (eeve.init.output).")
@click.option("--base", type=click.Path(), help="The base model's figures (an --output), to compare with.")
@click.option("--output", type=click.Path(), help="JSON file to write.")
@click.option("--name", default=None, help="What to call the model.")
@click.option("--position", type=float, default=0, help="Where it stands in a report.")
@click.option("--dtype", type=DTYPE, help="The weights' type.")
@click.option("--batch-size", type=click.IntRange(1), help="Windows in one forward pass.")
@click.option("--max-length", type=click.IntRange(2), help="Tokens in one forward pass.")
@click.option("--limit", type=click.IntRange(1), help="Documents of each text to read.")
@click.option(
    "--prompt", "prompts", multiple=True, help="Text to continue, for a sample; may be given again."
)
@set_keys
@told_plainly
def evaluate(
    model, config, texts, prompts, changes, tokenizer, output_rows, base, output, name, position, **reading
) -> None:
    """Evaluate MODEL on held-out texts: bits per byte, tokens per character, new tokens, samples."""
    from eeve_axolotl.evaluation.inspection import evaluate as evaluate_model
    from eeve_axolotl.evaluation.settings import EvaluationSettings
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.settings import read_yaml

    if changes and not config:
        raise click.UsageError("--set changes keys of a YAML: give --config too")
    settings = read_yaml(config, PipelineSettings, changes).evaluate if config else None
    given = {key: value for key, value in reading.items() if value is not None}
    if texts:
        given["texts"] = texts
    if prompts:
        given["prompts"] = EvaluationSettings.no_blank_at_the_end(list(prompts))
    if settings is not None:
        settings = settings.model_copy(update=given)
    elif texts:
        settings = EvaluationSettings(**given)
    if settings is None:
        raise EEVEError(
            "there is no text to evaluate on; give --text NAME=FILE, or --config with an `evaluate:` block"
        )
    where = {"tokenizer": tokenizer, "base": base, "output": output, "output_rows": output_rows}
    found = evaluate_model(model, settings, name=name, position=position, **where)
    for text, figures in found["texts"].items():
        click.echo(
            f"{found['name']}, {text}: {figures['bits_per_byte']:.4f} bits per byte, "
            f"{figures['tokens_per_character']:.3f} tokens per character"
        )


@eeve.command()
@click.argument("directory", type=click.Path())
@told_plainly
def report(directory: str) -> None:
    """Write report and model card on the pipeline whose output is DIRECTORY, into DIRECTORY/report."""
    from eeve_axolotl.report import write

    written = write(directory)
    for sentence in written.missing:
        click.echo(f"missing: {sentence}")
    click.echo(written.card)
    click.echo(f"{written.directory}: report.html, report.md and README.md (the model card)")


@eeve.command()
@click.argument("base", metavar="BASE")
@click.option("--tokenizer", required=True, help="The extended tokenizer.")
@click.option(
    "--text", "texts", required=True, multiple=True, help="Text as the stages read it; may be given again."
)
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Where the model goes.")
@click.option(
    "--tokens", type=click.IntRange(1), default=100_000, show_default=True, help="Of text to fit to, at most."
)
@click.option(
    "--max-length", type=click.IntRange(2), default=512, show_default=True, help="Tokens in a forward pass."
)
@click.option("--untie", is_flag=True, help="Give a model with one matrix for both embeddings a second.")
@click.option("--dtype", type=DTYPE, default="auto", show_default=True, help="The weights' type.")
@told_plainly
def start(base: str, tokenizer: str, texts: tuple[str, ...], output: str, **reading: Any) -> None:
    """Write BASE with its new rows, the new output rows fitted to text, for stage 1 to start from."""
    from eeve_axolotl import calibration

    click.echo(calibration.told(calibration.start(base, tokenizer, texts, output, **reading), output))


@eeve.command()
@click.argument("first", type=click.Path(exists=True), metavar="A")
@click.argument("second", type=click.Path(exists=True), metavar="B")
@click.option("--model", help='Of each pipeline this model ("base", "stage 3"), and not the last.')
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@told_plainly
def compare(first: str, second: str, model: str | None, as_json: bool) -> None:
    """Compare A and B, each a pipeline's output or a file of figures, on the held-out documents that both read."""
    from eeve_axolotl.evaluation import comparison

    click.echo(comparison.told(first, second, model, as_json))


@eeve.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tokenizer", required=True, help="The extended tokenizer that it was tuned with.")
@told_plainly
def complete(model: Path, tokenizer: str) -> None:
    """Put beside MODEL, which plain Axolotl tuned, what it leaves out of an extended tokenizer. Weights stay as they are."""
    from eeve_axolotl.tokenizer_files import complete_model

    for sentence in complete_model(model, tokenizer):
        click.echo(f"{model}: {sentence}")


@eeve.command()
@click.argument("directory", type=click.Path(file_okay=False), default="examples")
@click.option("--model", help="Only the recipes of this base model.")
@click.option("--recipe", help="Only this one, as --list shows it.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--list", "listed", is_flag=True, help="Print what there is, and copy nothing.")
@told_plainly
def recipes(directory: str, model: str | None, recipe: str | None, overwrite: bool, listed: bool) -> None:
    """Copy the packaged recipes to DIRECTORY (examples, if not given), with paths that are right there."""
    from eeve_axolotl.recipes import copy, files

    for path in files(model) if listed else copy(directory, model, overwrite, recipe):
        click.echo(path)


@eeve.command()
@click.argument("recipes", type=click.Path(), nargs=-1, required=True)
@click.option("--gpu", required=True, help="h100-80gb, a100-40gb, ...; an unknown name lists them.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="How many of them.")
@click.option("--price-per-hour", type=float, help="Of one GPU; gives the cost.")
@click.option("--utilisation", type=click.FloatRange(0, 1, min_open=True), default=0.4, show_default=True)
@click.option("--global-batch", type=click.IntRange(1), help="Sequences a step; the accumulation follows.")
@click.option("--new-tokens", type=click.IntRange(0), help="Where the tokenizer is not built yet.")
@click.option("--base-model", help="A directory with the config.json to plan for.")
@set_keys
@told_plainly
def plan(recipes: tuple[str, ...], gpu: str, **others: Any) -> None:
    """Memory, time and cost of the stages in RECIPES (stages or pipelines); exit status 1 if one does not fit."""
    from eeve_axolotl.planner import gpus

    known = gpus.find(gpu)  # before the heavy imports
    with stdout_kept():
        from eeve_axolotl.planner.estimate import Options, check_fits
        from eeve_axolotl.planner.table import planned

        options = Options(gpu=known, **others)
        estimates, lines = planned(recipes, options)
    for line in lines:
        click.echo(line)
    check_fits(estimates, options)


@eeve.command()
@click.argument("config", type=click.Path())
@set_keys
@told_plainly
def check(config: str, changes: tuple[str, ...]) -> None:
    """Say what the recipe CONFIG would train, and what would stop it; exit status 1 if something would.

    CONFIG may also be the YAML of a pipeline, a tokenizer or a corpus.
    """
    from eeve_axolotl import axolotl_versions, preview
    from eeve_axolotl.settings import read_mapping

    cfg = read_mapping(config, changes) | {"axolotl_config_path": config}
    click.echo(f"checked with {axolotl_versions.in_words()}")
    ours = preview.kind_of(cfg)
    if ours is not None:
        found = preview.look_at_ours(config, ours, changes)
    else:
        with contextlib.suppress(EEVEError):  # of the block, told below
            for line in preview.what_happens(cfg):
                click.echo(line)
        for note in preview.notes(cfg):
            click.echo(f"Note: {note}")
        found = preview.look(cfg)
    for each in found.unknown:
        click.echo(f"Unknown: {each}")
    for problem in found.problems:
        click.secho(f"Missing or wrong: {problem}", fg="red", err=True)
    if found.problems:
        sys.exit(1)
    click.echo("nothing would stop it" + (", as far as is known here" if found.unknown else ""))


SCHEMAS = {
    "stage": "eeve_axolotl.args:EEVEArgs",
    "tokenizer": "eeve_axolotl.tokenizer.settings:TokenizerSettings",
    "corpus": "eeve_axolotl.corpus.settings:CorpusSettings",
    "pipeline": "eeve_axolotl.pipeline.settings:PipelineSettings",
}


@eeve.command()
@click.argument("yaml", type=click.Choice([*SCHEMAS]), default="stage")
def schema(yaml: str) -> None:
    """Print the JSON schema of a stage's `eeve:` block, or of another YAML of ours.

    `axolotl config-schema` prints Axolotl's own keys only.
    """
    import json
    from pkgutil import resolve_name

    with stdout_kept():
        found = resolve_name(SCHEMAS[yaml]).model_json_schema()
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


def main() -> None:
    """`axolotl-eeve ...`: the same commands without Axolotl's banner, imports and logging. A chain starts them so."""
    import logging

    logging.basicConfig(format="%(message)s")
    logging.getLogger("axolotl").setLevel(logging.INFO)
    eeve()


if __name__ == "__main__":
    main()
