"""`axolotl eeve run`: what is to do, done in order, continued where it was."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import click

from eeve_axolotl import inputs, report, tokenizer_files
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import alone, check_writable, remove_ours, write_json
from eeve_axolotl.pipeline import launch, prepared, summary
from eeve_axolotl.pipeline.display import Display
from eeve_axolotl.pipeline.runs import Run, changes, claim
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.pipeline.start_step import StartStep
from eeve_axolotl.pipeline.tasks import Task, Tasks
from eeve_axolotl.records import (
    RECORD,
    RUN_STATE,
    RUNS,
    STARTED,
    TOKENIZER_FILE,
    TOKENIZER_MANIFEST,
    check_kept_weights,
    is_ours,
    read,
    read_record,
    record_merge,
)
from eeve_axolotl.settings import read_yaml
from eeve_axolotl.tokenizer.origin import what_changed
from eeve_axolotl.tokenizer.settings import TokenizerSettings

FULL = 1 << 20  # bytes: a disk with less room is full


class Chain:
    """A pipeline on disk. Everything that it knows it reads from there, so it can be killed at any moment."""

    def __init__(
        self,
        config: str,
        settings: PipelineSettings,
        launcher: launch.Launch | None = None,
        changes: Sequence[str] = (),
    ):
        self.settings, self._launch = settings, launcher or launch.launch
        self.tasks = Tasks(config, settings, changes)
        self.output, self.runs = self.tasks.output, self.tasks.runs

    def run(self, begin: str | None = None) -> None:
        """Do what is not done. `begin` names the stage from which to train again."""
        made, start = self.tasks.corpus, self.tasks.start
        for key, place in (
            ("output", self.output),
            *([(f"{made.config}: output", made.output)] if made else []),
            *([("start: output", start.output)] if start else []),
            *((f"{run.config}: output_dir", run.output) for run in self.runs),
        ):
            check_writable(place, key)
        self.output.mkdir(parents=True, exist_ok=True)
        busy = f"another `axolotl eeve run` is at work in {self.output}; wait for it, or stop it"
        with alone(self.output / ".lock", busy):
            launch.check_no_orphans(self.output / "logs")
            texts = self.settings.evaluate.texts if self.settings.evaluate else {}
            claim(self.output, self.runs, self.tasks.base, texts)
            if begin is not None:
                self.forget_from(begin)
            self.check_unchanged()
            if start:
                start.check_place()
                start.check_matrices()
            tasks = list(self.tasks.in_order())
            ahead = [task for task in tasks if task.trains and not task.done]
            known = all(task.steps for task in ahead)
            with Display(
                total=len(tasks),
                ahead=sum(task.steps for task in ahead) if known else None,
                price_per_hour=self.settings.price_per_hour,
            ) as display:
                for task in self.tasks.in_order():
                    display.task(task)
                    if not task.done:
                        self._do(task, display)
        self._finish()

    # --- before ---

    def check_unchanged(self, again: Collection[str] = ()) -> None:
        """Raise EEVEError naming what has changed since a step, or a run without stages in `again`, was done."""
        self._check_tokenizer_unchanged()
        if self.tasks.corpus:
            self.tasks.corpus.check_unchanged()
        if self.tasks.start:
            self.tasks.start.check_unchanged(self.output / STARTED)
        for run in self.runs:
            if any(each.name in again for each in run.stages):
                return  # this one and those after it are trained anew
            if run.trained:
                for place in run.stages[:-1]:
                    check_kept_weights(place.directory, place.name)
            self._check_run_unchanged(run)

    def _check_run_unchanged(self, run: Run) -> None:
        trained = run.trained
        if not trained and not run.begun:
            return
        before = read(self._state(run) if trained else self._begun(run), RUN_STATE)
        if not before:
            return
        now = {**run.state(), "made": inputs.of_model(run.output)}
        if not trained:
            # It goes on where it was with other settings, on a smaller batch perhaps, but not on another text.
            before = {**before, "made": now["made"], "settings": now["settings"]}
        if found := changes(before, now):
            raise EEVEError(
                f"{run.config} is {'done' if trained else 'trained in part'}, but since then {'; '.join(found)}. Put it "
                f"back, or train again from there: --from {run.stages[0].name}"
            )

    def _check_tokenizer_unchanged(self) -> None:
        if not self.settings.tokenizer:
            return
        settings = read_yaml(self.settings.tokenizer, TokenizerSettings)
        built = read(Path(settings.output) / TOKENIZER_MANIFEST, TOKENIZER_FILE)
        if built and (found := what_changed(built, settings)):
            raise EEVEError(
                f"{settings.output} is built, but since then in {self.settings.tokenizer} {'; '.join(found)}. Put it "
                f"back, or remove {settings.output} to have it built again"
            )

    def forget_from(self, name: str) -> None:
        """Remove what stage `name` and those after it made, so that they train again."""
        again = self.tasks.stages_from(name)
        for run in self.runs:
            _check_can_begin(run, name)
            for place in run.stages:
                if place.name in again:
                    for of_the_stage in ("checkpoints", "runs"):  # `runs` is TensorBoard's
                        shutil.rmtree(run.output / of_the_stage / f"stage{place.name}", ignore_errors=True)
                    if place.directory != run.output:
                        remove_ours(place.directory, is_ours)
            if run.stages[-1].name in again:
                self._state(run).unlink(missing_ok=True)
                self._begun(run).unlink(missing_ok=True)
                (run.output / RECORD).unlink(missing_ok=True)
                for checkpoint in run.output.glob("checkpoint-*"):
                    shutil.rmtree(checkpoint)
                if run.has_adapter:
                    remove_ours(run.result, is_ours)

    def _state(self, run: Run) -> Path:
        """The file that says what a finished run depended on."""
        return self.output / RUNS / f"{run.name}.json"

    def _begun(self, run: Run) -> Path:
        """The same of a run that is not finished."""
        return self.output / RUNS / f"{run.name}.begun.json"

    # --- doing it ---

    def _do(self, task: Task, display: Display) -> None:
        if task.trains:
            self._train(task, task.trains, display)
        elif task.merges:
            self._merge(task, task.merges, display)
        elif task.starts:
            self._start(task, task.starts, display)
        else:
            self._command(task, display)
            if task.makes:
                task.makes.check_made()

    def _train(self, task: Task, run: Run, display: Display) -> None:
        check_room(run.cfg["base_model"], run.output, task.what)
        state = run.state()
        alone_with_text: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if run.cfg.get("datasets") and not any(each.startswith(prepared.OPTION) for each in task.arguments):
            cache = prepared.place(run, self.output)
            prepared.make_ready(cache, self.output)
            alone_with_text = prepared.datasets_of_its_own(run, cache)
            # After `train CONFIG`: what the launcher gets comes last.
            task = replace(
                task, arguments=[*task.arguments[:2], prepared.OPTION, str(cache), *task.arguments[2:]]
            )
        write_json(self._begun(run), state)
        with alone_with_text:
            log = self._command(task, display)
        if not run.trained:
            raise EEVEError(f"`axolotl {' '.join(task.arguments)}` left no record in {run.output}; see {log}")
        fetched = inputs.known_since(state["inputs"], run.state()["inputs"])
        write_json(self._state(run), {**state, "inputs": fetched, "made": inputs.of_model(run.output)})
        self._begun(run).unlink(missing_ok=True)

    def _start(self, task: Task, step: StartStep, display: Display) -> None:
        check_room(step.base, step.output, task.what)
        state = step.state()
        write_json(self.output / STARTED, state)
        self._command(task, display)
        step.check_made()
        fetched = inputs.known_since(state["inputs"], step.state()["inputs"])
        write_json(self.output / STARTED, {**state, "inputs": fetched, "made": step.made()})

    def _merge(self, task: Task, run: Run, display: Display) -> None:
        check_room(run.cfg["base_model"], run.output, task.what)
        remove_ours(run.result, is_ours)  # of a merge that was killed
        self._command(task, display)
        tokenizer_files.copy(run.cfg.get("tokenizer_config") or run.cfg["base_model"], run.result)
        recorded = record_merge(run.output, run.result)  # Axolotl 0.21 has asked the plugin to, 0.19 has not
        assert recorded  # the run is trained

    def _command(self, task: Task, display: Display) -> Path:
        """Run the task's command; returns its log. Raises EEVEError in the command's own words if it fails."""
        log = self.output / "logs" / f"{task.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        status = self._launch(task.arguments, log, display.told)
        if status == -signal.SIGKILL:
            raise EEVEError(
                f"`axolotl {' '.join(task.arguments)}` was killed, for want of memory perhaps; run the same command "
                f"again to go on where it was (its log: {log})"
            )
        if status and shutil.disk_usage(log.parent).free < FULL:
            raise EEVEError(
                f"`axolotl {' '.join(task.arguments)}` failed, and the disk of {log.parent} is full; make room, and run "
                "the same command again to go on where it was"
            )
        if status:
            raise EEVEError(
                f"`axolotl {' '.join(task.arguments)}` failed: {launch.why(log)} (all of it: {log})"
            )
        return log

    def _finish(self) -> None:
        """The report, and the table that ends the command."""
        if self.settings.evaluate:
            written = report.write(self.output)
            click.echo("\n" + summary.table(self.output, self.runs))
            click.echo(f"\nreport: {written.directory / 'report.html'}")
            click.echo(written.card)


def check_room(base_model: str, output: Path, what: str) -> None:
    """Raise EEVEError if the disk has no room for another model of the size of `base_model`."""
    needed = sum(path.stat().st_size for path in Path(base_model).glob("*.safetensors"))
    place = next(each for each in (output.absolute(), *output.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise EEVEError(
            f"{what}: writing its weights needs {needed / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB free; make "
            "room, or choose another place"
        )


def _check_can_begin(run: Run, name: str) -> None:
    """Raise EEVEError if stage `name` is inside `run` and the stage before it did not keep its weights."""
    names = [each.name for each in run.stages]
    number = names.index(name) if name in names else 0
    if number > 0 and read_record(run.stages[number - 1].directory) is None:
        raise EEVEError(
            f"--from {name}: the weights of stage {names[number - 1]} were not kept (`save_stages: all` keeps them); "
            f"begin from {names[0]}"
        )
