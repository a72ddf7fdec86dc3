"""`axolotl eeve run`: what is to do, done in order, continued where it was."""

from __future__ import annotations

import fcntl
import re
import shutil
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from eeve_axolotl import report
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.settings import subject
from eeve_axolotl.files import read_json_if_there, write_json
from eeve_axolotl.pipeline import launch, summary
from eeve_axolotl.pipeline.progress import Progress
from eeve_axolotl.pipeline.runs import Run, changes, check_chain, claim, differences
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.records import (
    EVALUATION,
    HISTORY,
    RECORD,
    RUNS,
    TOKENIZER_MANIFEST,
    read_record,
    weights_sha256,
)
from eeve_axolotl.settings import read_yaml
from eeve_axolotl.tokenizer.build import TokenizerSettings

# How Python prints the error that ended a process, under torchrun with its rank before it.
RAISED = re.compile(r"^(\[rank\d+\]: ?)?[\w.]*(Error|Exception|Interrupt)\b(: .*)?$")
# What the launchers add: only that a process of theirs failed.
LAUNCHERS = ("ChildFailedError", "CalledProcessError")


@dataclass(frozen=True)
class Task:
    """One command of the chain: what it does, in words, and whether that is done already."""

    name: str
    what: str
    done: bool
    arguments: list[str]
    steps: int = 0


class Chain:
    """A pipeline on disk. Everything that it knows it reads from there, so it can be killed at any moment."""

    def __init__(self, config: str, settings: PipelineSettings, launcher: launch.Launch | None = None):
        self.config, self.settings, self._launch = config, settings, launcher or launch.launch
        self.output = Path(settings.output)
        self.runs = [Run.read(each) for each in settings.runs]
        check_chain(self.runs)
        for name, path in (settings.evaluate.texts if settings.evaluate else {}).items():
            if not Path(path).exists():
                raise EEVEError(
                    f"evaluate: the held-out text {name}, {path}, does not exist; give a JSON-lines file"
                )

    # --- what is to do ---

    def tasks(self, again: Collection[str] = ()) -> Iterator[Task]:
        """Every command in order, those of the stages `again` as not done.

        What follows from files that are not there yet is asked when its turn comes.
        """
        if self.settings.tokenizer:
            config = self.settings.tokenizer
            directory = Path(read_yaml(config, TokenizerSettings).output)
            done = (directory / TOKENIZER_MANIFEST).is_file()
            yield Task("tokenizer", f"tokenizer: {directory}", done, ["eeve", "tokenizer", config])
        if self.settings.evaluate:
            yield self._evaluation("base", -1, self.runs[0].cfg["base_model"], own_tokenizer=True)
            yield self._evaluation("extended", 0, self.runs[0].cfg["base_model"])
        for run in self.runs:
            yield from self._of_run(run, again)

    def _of_run(self, run: Run, again: Collection[str]) -> Iterator[Task]:
        redo = any(each.name in again for each in run.stages)
        names = ", ".join(each.name for each in run.stages)
        config = str(run.config)
        train = ["train", config, "--launcher", self.settings.launcher, *self.settings.train_args]
        if "auto_resume_from_checkpoints" not in run.cfg:
            train += ["--auto-resume-from-checkpoints"]
        train += ["--", *self.settings.launcher_args] if self.settings.launcher_args else []
        what = f"stage{'s' if len(run.stages) > 1 else ''} {names}: {run.output}"
        yield Task(run.name, what, run.trained and not redo, train, run.max_steps)
        if run.has_adapter:
            merged = run.merged and not redo
            yield Task(f"{run.name}.merge", f"merge: {run.result}", merged, ["merge-lora", config])
        if self.settings.evaluate:
            for place in run.stages:
                final = place.directory == run.output
                if final or run.settings.save_stages == "all":
                    directory = run.result if final else place.directory
                    task = self._evaluation(f"stage {place.name}", self._position(place.name), str(directory))
                    yield replace(task, done=task.done and place.name not in again)

    def _position(self, name: str) -> float:
        order = [each.name for run in self.runs for each in run.stages]
        return int(name) if name.isdigit() else 1 + order.index(name)

    def _evaluation(self, name: str, position: float, model: str, own_tokenizer: bool = False) -> Task:
        file = self.output / EVALUATION / f"{name.replace(' ', '')}.json"
        before = read_json_if_there(file)
        arguments = ["eeve", "evaluate", model, "--config", self.config, "--output", str(file)]
        arguments += ["--name", name, "--position", str(position)]
        tokenizer = self.runs[0].cfg.get("tokenizer_config")
        if tokenizer and not own_tokenizer:
            arguments += ["--tokenizer", tokenizer]
        base = self.output / EVALUATION / "base.json"
        if not own_tokenizer:
            arguments += ["--base", str(base)]
        now = subject(model, None if own_tokenizer else tokenizer, self.settings.evaluate)
        done = before is not None and all(before.get(key) == value for key, value in now.items())
        return Task(f"evaluate.{name.replace(' ', '')}", f"evaluate: {name}", done, arguments)

    def check_unchanged(self, again: Collection[str] = ()) -> None:
        """Raise EEVEError naming what has changed since the tokenizer, or a run without stages in `again`, was done."""
        self._check_tokenizer_unchanged()
        for run in self.runs:
            if any(each.name in again for each in run.stages):
                return  # this one and those after it are trained anew
            before = read_json_if_there(self._state(run))
            if before and run.trained and (found := changes(before, run.state())):
                raise EEVEError(
                    f"{run.config} is done, but since then {'; '.join(found)}. Put it back, or train again from there: "
                    f"--from {run.stages[0].name}"
                )

    def _check_tokenizer_unchanged(self) -> None:
        if not self.settings.tokenizer:
            return
        settings = read_yaml(self.settings.tokenizer, TokenizerSettings)
        built = (read_json_if_there(Path(settings.output) / TOKENIZER_MANIFEST) or {}).get("settings") or {}
        now = settings.model_dump(mode="json")
        if found := differences(built, {key: now.get(key) for key in built}):
            raise EEVEError(
                f"{settings.output} is built, but since then in {self.settings.tokenizer} {'; '.join(found)}. Put it "
                f"back, or remove {settings.output} to have it built again"
            )

    def stages_from(self, name: str | None) -> list[str]:
        """Stage `name` and those after it; none for None. Raises EEVEError if there is no such stage."""
        names = [each.name for run in self.runs for each in run.stages]
        if name is None:
            return []
        if name not in names:
            raise EEVEError(
                f"--from {name}: there is no such stage in this pipeline; its stages are {', '.join(names)}"
            )
        return names[names.index(name) :]

    def _state(self, run: Run) -> Path:
        return self.output / RUNS / f"{run.name}.json"

    # --- doing it ---

    def run(self, begin: str | None = None) -> None:
        """Do what is not done. `begin` names the stage from which to train again."""
        self.output.mkdir(parents=True, exist_ok=True)
        with self._alone():
            claim(self.output, self.runs, self.settings.evaluate.texts if self.settings.evaluate else {})
            if begin is not None:
                self.forget_from(begin)
            self.check_unchanged()
            with Progress(list(self.tasks())) as progress:
                for task in self.tasks():
                    progress.task(task)
                    if not task.done:
                        self._do(task, progress)
        self._finish()

    def _do(self, task: Task, progress: Progress) -> None:
        run = next((each for each in self.runs if task.name in (each.name, f"{each.name}.merge")), None)
        state = None
        if run:
            check_room(run.cfg["base_model"], run.output, task.what)
        if run and task.name == run.name:
            remove_half_written(Path(run.cfg.get("dataset_prepared_path") or "last_run_prepared"))
            state = run.state()
        elif run:
            shutil.rmtree(run.result, ignore_errors=True)  # of a merge that was killed
        log = self.output / "logs" / f"{task.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        status = self._launch(task.arguments, log, progress.step)
        if status == -signal.SIGKILL:
            raise EEVEError(
                f"`axolotl {' '.join(task.arguments)}` was killed, for want of memory perhaps; run the same command "
                f"again to go on where it was (its log: {log})"
            )
        if status:
            raise EEVEError(f"`axolotl {' '.join(task.arguments)}` failed: {_why(log)} (all of it: {log})")
        if run and task.name == run.name:
            if not run.trained:
                raise EEVEError(
                    f"`axolotl {' '.join(task.arguments)}` left no record in {run.output}; see {log}"
                )
            write_json(self._state(run), state)
        elif run:
            record = read_record(run.output)
            merged = {"merged_from": record["weights"], "weights": weights_sha256(run.result)}
            if (run.output / HISTORY).is_file():
                shutil.copy(run.output / HISTORY, run.result / HISTORY)
            write_json(run.result / RECORD, {**record, **merged})

    def _finish(self) -> None:
        """The report, and the table that ends the command."""
        if self.settings.evaluate:
            written = report.write(self.output)
            click.echo("\n" + summary.markdown(summary.table(self.output, self.runs)))
            click.echo(f"\nreport: {written.directory / 'report.html'}")
            click.echo(written.card)

    def forget_from(self, name: str) -> None:
        """Remove what stage `name` and those after it made, so that they train again."""
        again = self.stages_from(name)
        for run in self.runs:
            for number, place in enumerate(run.stages):
                if (
                    place.name == name
                    and number > 0
                    and read_record(run.stages[number - 1].directory) is None
                ):
                    raise EEVEError(
                        f"--from {name}: the weights of stage {run.stages[number - 1].name} were not kept "
                        f"(`save_stages: all` keeps them); begin from {run.stages[0].name}"
                    )
                if place.name in again:
                    for of_the_stage in ("checkpoints", "runs"):  # `runs` is TensorBoard's
                        shutil.rmtree(run.output / of_the_stage / f"stage{place.name}", ignore_errors=True)
                    if place.directory != run.output:
                        shutil.rmtree(place.directory) if place.directory.is_dir() else None
            if run.stages[-1].name in again:
                self._state(run).unlink(missing_ok=True)
                (run.output / RECORD).unlink(missing_ok=True)
                for checkpoint in run.output.glob("checkpoint-*"):
                    shutil.rmtree(checkpoint)
                if run.has_adapter:
                    shutil.rmtree(run.result, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.output / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise EEVEError(
                    f"another `axolotl eeve run` is at work in {self.output}; wait for it, or stop it"
                ) from None
            yield


def check_room(base_model: str, output: Path, what: str) -> None:
    """Raise EEVEError if the disk has no room for another model of the size of `base_model`."""
    needed = sum(path.stat().st_size for path in Path(base_model).glob("*.safetensors"))
    place = next(each for each in (output.absolute(), *output.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise EEVEError(
            f"{what}: writing its weights needs {needed / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB free; make "
            "room, or choose another output_dir"
        )


def remove_half_written(prepared: Path) -> None:
    """Remove datasets that were being prepared when their run was killed; Axolotl would take them for whole."""
    if not prepared.is_dir():
        return
    for directory in prepared.iterdir():
        if directory.is_dir() and not any(
            (directory / name).is_file() for name in ("state.json", "dataset_dict.json")
        ):
            shutil.rmtree(directory)


def _why(log: Path) -> str:
    """The failed command's own words: our errors are one sentence, others end in theirs."""
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    ours = [line for line in lines if line.startswith(("eeve_axolotl: ", "Error: "))]
    raised = [line for line in lines if RAISED.match(line) and not any(name in line for name in LAUNCHERS)]
    return (ours or raised or lines or ["it printed nothing"])[-1]


def print_plan(chain: Chain, begin: str | None = None) -> None:
    """Print every command and whether it is done, and those from stage `begin` on as to be done."""
    for task in chain.tasks(chain.stages_from(begin)):
        steps = f", at most {task.steps:,} steps" if task.steps else ""
        click.echo(f"  {'done' if task.done else 'to do':5}  {task.what}{steps}")
