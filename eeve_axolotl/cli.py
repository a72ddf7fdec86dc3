"""`axolotl eeve ...`: thin commands. Heavy imports stay inside the commands."""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click

from eeve_axolotl.errors import EEVEError


@click.group()
def eeve() -> None:
    """Teach a model a new language's vocabulary, the EEVE way."""


def told_plainly(command: Callable) -> Callable:
    """Print what a person can put right as one line on stderr, without a traceback: exit status 1, after Ctrl-C 130."""

    @functools.wraps(command)
    def wrapper(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except EEVEError as error:
            _end(f"Error: {error}", 1)
        except KeyboardInterrupt:
            _end("Stopped. What was finished stays: run the same command again to go on from there", 130)
        except Exception as error:
            number = _refusal(error)
            if number not in REFUSED:
                raise
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            _end(
                f"Error: {where}{os.strerror(number)}; make it possible to read and write there, or give another place",
                1,
            )

    return wrapper


# What a disk says to a person who asks for too much of it.
REFUSED = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR, errno.EISDIR,
    errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY, errno.EIO, errno.ESTALE, errno.ENOLCK,
    errno.EMFILE, errno.ENFILE,
}  # fmt: skip


def _refusal(error: Exception) -> int:
    """The number of what the system refused, 0 where it is none; libraries written in Rust only say it in words."""
    if isinstance(error, OSError):
        return error.errno or 0
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else 0


def _end(sentence: str, status: int) -> None:
    click.secho(sentence, fg="red", err=True)
    sys.exit(status)


@eeve.command()
@click.argument("config", type=click.Path())
@told_plainly
def tokenizer(config: str) -> None:
    """Extend a tokenizer with a corpus's tokens, as CONFIG says."""
    from eeve_axolotl.settings import read_yaml
    from eeve_axolotl.tokenizer.build import build
    from eeve_axolotl.tokenizer.settings import TokenizerSettings

    settings = read_yaml(config, TokenizerSettings)
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
@told_plainly
def corpus(config: str) -> None:
    """Filter text, choose documents for the new tokens, split and write shards, as CONFIG says."""
    try:
        from eeve_axolotl.corpus.build import build
        from eeve_axolotl.corpus.settings import CorpusSettings
    except ModuleNotFoundError as error:
        raise EEVEError(f"{error.name} is not installed; `pip install 'eeve-axolotl[corpus]'`") from None
    from eeve_axolotl.settings import read_yaml

    settings = read_yaml(config, CorpusSettings)
    output = build(settings)
    if settings.executor.kind == "slurm":
        click.echo(f"queued; {output} appears when the last job has run")
    else:
        click.echo(f"{output}: see {output / 'README.md'} for what was kept, removed and chosen")


@eeve.command()
@click.argument("config", type=click.Path())
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("--from", "begin", metavar="STAGE", help="Train this stage and those after it again.")
@told_plainly
def run(config: str, dry_run: bool, begin: str | None) -> None:
    """Run a whole pipeline: tokenizer, stages, merges, evaluation, report. Run again, it continues."""
    from eeve_axolotl.pipeline.chain import Chain
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.pipeline.tasks import print_tasks
    from eeve_axolotl.settings import read_yaml

    chain = Chain(config, read_yaml(config, PipelineSettings))
    print_tasks(chain.tasks, begin)
    if dry_run:
        chain.check_unchanged(chain.tasks.stages_from(begin))
    else:
        chain.run(begin)


@eeve.command()
@click.argument("model")
@click.option("--config", type=click.Path(), help="A pipeline YAML whose `evaluate:` block to use.")
@click.option(
    "--text", "texts", multiple=True, metavar="NAME=FILE", help="A held-out text; may be given again."
)
@click.option("--tokenizer", help="Directory of the tokenizer, if it is not the model's own.")
@click.option("--base", type=click.Path(), help="The base model's figures (an --output), to compare with.")
@click.option("--output", type=click.Path(), help="JSON file to write.")
@click.option("--name", default=None, help="What to call the model.")
@click.option("--position", type=float, default=0, help="Where it stands in a report.")
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="The weights' type."
)
@click.option("--batch-size", type=click.IntRange(1), help="Windows in one forward pass.")
@click.option("--max-length", type=click.IntRange(2), help="Tokens in one forward pass.")
@click.option("--limit", type=click.IntRange(1), help="Documents of each text to read.")
@click.option(
    "--prompt", "prompts", multiple=True, help="Text to continue, for a sample; may be given again."
)
@told_plainly
def evaluate(model, config, texts, tokenizer, base, output, name, position, prompts, **reading) -> None:
    """Evaluate MODEL on held-out texts: bits per byte, tokens per character, new tokens, samples."""
    from eeve_axolotl.evaluation.inspection import evaluate as evaluate_model
    from eeve_axolotl.evaluation.settings import EvaluationSettings
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.settings import read_yaml

    settings = read_yaml(config, PipelineSettings).evaluate if config else None
    given = {key: value for key, value in reading.items() if value is not None}
    if texts:
        given["texts"] = dict(each.partition("=")[::2] for each in texts)
    if prompts:
        given["prompts"] = list(prompts)
    if settings is not None:
        settings = settings.model_copy(update=given)
    elif texts:
        settings = EvaluationSettings(**given)
    if settings is None:
        raise EEVEError(
            "there is no text to evaluate on; give --text NAME=FILE, or --config with an `evaluate:` block"
        )
    found = evaluate_model(
        model, settings, tokenizer=tokenizer, base=base, output=output, name=name, position=position
    )
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
@click.argument("directory", type=click.Path(file_okay=False), default="examples")
@click.option("--model", help="Only the recipes of this base model.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@told_plainly
def recipes(directory: str, model: str | None, overwrite: bool) -> None:
    """Copy the packaged recipes to DIRECTORY (examples, if not given)."""
    from eeve_axolotl.recipes import copy

    for path in copy(directory, model, overwrite):
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
@told_plainly
def plan(recipes: tuple[str, ...], gpu: str, **others: Any) -> None:
    """Memory, time and cost of the stages in RECIPES (stages or pipelines); exit status 1 if one does not fit."""
    from eeve_axolotl.planner import gpus
    from eeve_axolotl.planner.estimate import Options, check_fits, estimate
    from eeve_axolotl.planner.table import assumptions, table

    options = Options(gpu=gpus.find(gpu), **others)
    estimates = [each for recipe in recipes for each in estimate(recipe, options)]
    click.echo(table(estimates))
    click.echo(assumptions(estimates, options))
    check_fits(estimates, options)


@eeve.command()
@click.argument("config", type=click.Path())
@told_plainly
def check(config: str) -> None:
    """Say what the recipe CONFIG would train, and what would stop it; exit status 1 if something would."""
    from eeve_axolotl import axolotl_versions, preview
    from eeve_axolotl.settings import read_mapping

    cfg = read_mapping(config) | {"axolotl_config_path": config}
    click.echo(f"checked with {axolotl_versions.in_words()}")
    for line in preview.what_happens(cfg):
        click.echo(line)
    for note in preview.notes(cfg):
        click.echo(f"Note: {note}")
    found = preview.problems(cfg)
    for problem in found:
        click.secho(f"Missing or wrong: {problem}", fg="red", err=True)
    if found:
        sys.exit(1)
    click.echo("nothing would stop it")


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

    click.echo(json.dumps(resolve_name(SCHEMAS[yaml]).model_json_schema(), indent=2, ensure_ascii=False))


if __name__ == "__main__":  # how a chain starts these commands: without Axolotl's imports, and its logging
    import logging

    logging.basicConfig(format="%(message)s")
    logging.getLogger("axolotl").setLevel(logging.INFO)
    eeve()
