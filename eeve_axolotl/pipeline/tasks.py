"""What a chain has to do: its commands in order, and which of them are done already, read off the disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from eeve_axolotl.args import InitSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.settings import EvaluationSettings, subject
from eeve_axolotl.pipeline.corpus_step import CorpusStep
from eeve_axolotl.pipeline.runs import Run, check_chain
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.pipeline.start_step import StartStep
from eeve_axolotl.records import EVALUATION, FIGURES, TOKENIZER_MANIFEST, read
from eeve_axolotl.settings import read_yaml
from eeve_axolotl.tokenizer.settings import TokenizerSettings


@dataclass(frozen=True)
class Task:
    """One command of the chain: what it does, in words, and whether that is done already."""

    name: str
    what: str
    done: bool
    arguments: list[str]
    """After `axolotl`."""
    trains: Run | None = None
    """The run that it trains."""
    merges: Run | None = None
    """The run whose adapter it merges."""
    makes: CorpusStep | None = None
    """The corpus that it makes."""
    starts: StartStep | None = None
    """The model with new rows that it makes of the base."""
    steps: int = 0
    """Optimiser steps at most; 0 where there are none, or the YAML does not say."""


class Tasks:
    """The commands of one pipeline. Raises EEVEError for a pipeline that cannot run.

    Args:
        settings: of the YAML `config`, with `changes` of its keys (see `settings.changed`), which its commands are told too.
    """

    def __init__(self, config: str, settings: PipelineSettings, changes: Sequence[str] = ()):
        self.config, self.settings, self._changes = config, settings, changes
        self.output = Path(settings.output)
        self.runs = [Run.read(each) for each in settings.runs]
        check_chain(self.runs)
        self.corpus = CorpusStep(settings.corpus) if settings.corpus else None
        texts = settings.evaluate.texts if settings.evaluate else {}
        if self.corpus:
            self.corpus.check(self.runs, settings.tokenizer, texts)
        for name, path in texts.items():
            if not Path(path).exists() and not (
                self.corpus and not self.corpus.done and self.corpus.makes(path)
            ):
                raise EEVEError(
                    f"evaluate: the held-out text {name}, {path}, does not exist; give a JSON-lines file"
                    + (f", or one of {self.corpus.held_out()}" if self.corpus else "")
                )
        self.start = StartStep(settings.start, self.runs[0], self.corpus) if settings.start else None
        if self.start:
            others = {"the pipeline's output": settings.output}
            if self.corpus:
                others["the corpus"] = str(self.corpus.output)
            self.start.check(self.runs, others, texts)

    @property
    def base(self) -> str:
        """The base model that the chain begins with, without any new row."""
        return self.start.base if self.start else str(self.runs[0].cfg["base_model"])

    def in_order(self, again: Collection[str] = ()) -> Iterator[Task]:
        """Every command, those of the stages `again` as not done.

        What follows from files that are not there yet is asked when its turn comes.
        """
        if self.settings.tokenizer:
            config = self.settings.tokenizer
            directory = Path(read_yaml(config, TokenizerSettings).output)
            done = (directory / TOKENIZER_MANIFEST).is_file()
            yield Task("tokenizer", f"tokenizer: {directory}", done, ["eeve", "tokenizer", config])
        if self.corpus:
            made = self.corpus
            yield Task(
                "corpus", f"corpus: {made.output}", made.done, ["eeve", "corpus", made.config], makes=made
            )
        if self.settings.evaluate:
            yield self._evaluation(self.settings.evaluate, "base", -1, self.base, own_tokenizer=True)
        if self.start:
            to = self.start
            yield Task("start", f"start: {to.output}", to.done, to.arguments(), starts=to)
        if self.settings.evaluate:
            begins = self.runs[0].cfg["base_model"]
            rule = self.runs[0].settings.init.output
            changed = None if rule == InitSettings().output else rule
            yield self._evaluation(self.settings.evaluate, "extended", 0, begins, output_rows=changed)
        for run in self.runs:
            yield from self._of_run(run, again)

    def stages_from(self, name: str | None) -> list[str]:
        """Stage `name` and those after it; none for None. Raises EEVEError if there is no such stage."""
        names = self._stage_names()
        if name is None:
            return []
        if name not in names:
            raise EEVEError(
                f"--from {name}: there is no such stage in this pipeline; its stages are {', '.join(names)}"
            )
        return names[names.index(name) :]

    def _stage_names(self) -> list[str]:
        return [each.name for run in self.runs for each in run.stages]

    def _of_run(self, run: Run, again: Collection[str]) -> Iterator[Task]:
        redo = any(each.name in again for each in run.stages)
        names = ", ".join(each.name for each in run.stages)
        what = f"stage{'s' if len(run.stages) > 1 else ''} {names}: {run.output}"
        done = run.trained and not redo
        yield Task(run.name, what, done, self._train_arguments(run), trains=run, steps=run.max_steps)
        if run.has_adapter:
            merged = run.merged and not redo
            arguments = ["merge-lora", str(run.config)]
            yield Task(f"{run.name}.merge", f"merge: {run.result}", merged, arguments, merges=run)
        if self.settings.evaluate:
            for place in run.stages:
                final = place.directory == run.output
                if final or run.settings.save_stages == "all":
                    model = str(run.result if final else place.directory)
                    task = self._evaluation(
                        self.settings.evaluate, f"stage {place.name}", self._position(place.name), model
                    )
                    yield replace(task, done=task.done and place.name not in again)

    def _train_arguments(self, run: Run) -> list[str]:
        train = ["train", str(run.config), "--launcher", self.settings.launcher, *self.settings.train_args]
        if "auto_resume_from_checkpoints" not in run.cfg:
            train += ["--auto-resume-from-checkpoints"]
        return train + (["--", *self.settings.launcher_args] if self.settings.launcher_args else [])

    def _position(self, stage: str) -> float:
        return int(stage) if stage.isdigit() else 1 + self._stage_names().index(stage)

    def _evaluation(
        self,
        settings: EvaluationSettings,
        name: str,
        position: float,
        model: str,
        own_tokenizer: bool = False,
        output_rows: str | None = None,
    ) -> Task:
        """The task that evaluates `model`; done if there are figures of it, with the settings of now."""
        figures = self.output / EVALUATION
        file = figures / f"{name.replace(' ', '')}.json"
        arguments = ["eeve", "evaluate", model, "--config", self.config, "--output", str(file)]
        arguments += ["--name", name, "--position", str(position)]
        for change in self._changes:
            arguments += ["--set", change]
        tokenizer = None if own_tokenizer else self.runs[0].cfg.get("tokenizer_config")
        if tokenizer:
            arguments += ["--tokenizer", tokenizer]
        if not own_tokenizer:
            arguments += ["--base", str(figures / "base.json")]
        if output_rows:
            arguments += ["--output-rows", output_rows]
        before = read(file, FIGURES)
        now = subject(model, tokenizer, settings, output_rows)
        done = before is not None and all(before.get(key) == value for key, value in now.items())
        return Task(f"evaluate.{file.stem}", f"evaluate: {name}", done, arguments)


def print_tasks(tasks: Tasks, begin: str | None = None) -> None:
    """Print every command and whether it is done, and those from stage `begin` on as to be done."""
    for task in tasks.in_order(tasks.stages_from(begin)):
        steps = f", at most {task.steps:,} steps" if task.steps else ""
        click.echo(f"  {'done' if task.done else 'to do':5}  {task.what}{steps}")
