"""The stages inside the trainer's lifecycle: one after another, each with an optimiser that cannot touch
frozen rows, and each with its proof."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import torch
from axolotl.core.trainers.base import AxolotlTrainer
from transformers import TrainerCallback, TrainerState, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from eeve_axolotl.args import ConvergenceSettings, EvaluateSettings, ScheduledStage
from eeve_axolotl.batch import accumulation_steps, steps_for
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.inspection import first_subwords
from eeve_axolotl.evaluation.scoring import read_texts, score
from eeve_axolotl.files import read_json_if_there, replacing
from eeve_axolotl.logs import logger
from eeve_axolotl.records import OPTIMIZER, RECORD, WHOLE, read_record
from eeve_axolotl.rows import FrozenRowsMixin
from eeve_axolotl.schedule import converged

LOG = logger("trainer")

# A stage's own settings, and what the trainer calls them.
OVERRIDES = {
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "warmup_steps": "warmup_steps",
    "micro_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
}


class EEVETrainer(FrozenRowsMixin, AxolotlTrainer):
    """Axolotl's trainer for EEVE's stages.

    A recipe names it as `trainer_cls`, so that the recipe cannot run where this package is missing:
    Axolotl would skip the plugin with a line in the log and train every parameter.
    """

    eeve_run = None
    _carried: dict | None = None  # with `keep_optimizer`: state of the stage before, by the parameter's name
    _steps_before = 0  # in the stages before this one
    _all_steps: int | None = None  # with `keep_schedule`: of all stages

    def create_optimizer(self, model=None):
        """Axolotl's optimiser, held to what the stage trains; with `keep_optimizer`, its state carried over."""
        optimizer = super().create_optimizer(model)
        for name, parameter in self.eeve_run.frozen.trained_parameters().items():
            state = (self._carried or {}).get(name)
            # The same rows: a matrix that trains whole from now on starts afresh.
            if state and all(each.shape == parameter.shape for each in _momenta(state)):
                optimizer.state[parameter] = state
        self._carried = None
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """A schedule of the stage's own; with `keep_schedule`, that of all stages, gone on with."""
        if self._all_steps is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        scheduler = super().create_scheduler(self._all_steps, optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no optimiser stepped: in the stages before, one did
            for _ in range(self._steps_before):
                scheduler.step()
        return scheduler

    @property
    def frozen_rows(self):
        """What the stage froze in the trainer's model."""
        return self.eeve_run.frozen

    def log(self, logs: dict, *args, **kwargs) -> None:
        """What Axolotl logs, with the stage, for whatever tracker its config names."""
        if self.eeve_run is not None:
            name = self.eeve_run.stage.name
            logs["eeve/stage"] = int(name) if name.isdigit() else name
            logs["eeve/step"] = self._steps_before + self.state.global_step  # each stage counts from 0
        super().log(logs, *args, **kwargs)

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Train every stage of the schedule, with a fingerprint of everything frozen around each.

        Raises rows.FrozenMovedError if a frozen value has changed; SystemExit for what a user can put right.
        """
        if self.eeve_run is None:
            raise SystemExit(
                "eeve_axolotl: `trainer_cls` names EEVETrainer but the plugin is not listed; add "
                "`plugins: [eeve_axolotl.EEVEPlugin]`"
            )
        try:
            if len(self.eeve_run.schedule) == 1:
                with _Overrides(self):
                    if resume_from_checkpoint and self.eeve_run.auto_resume:
                        resume_from_checkpoint = last_whole_checkpoint(Path(self.args.output_dir))
                    return self._train_stage(resume_from_checkpoint, **kwargs)
            return self._train_schedule(resume_from_checkpoint, **kwargs)
        except EEVEError as error:
            raise SystemExit(f"eeve_axolotl: {error}") from None

    def _train_stage(self, resume_from_checkpoint=None, **kwargs):
        """The stage that the run is in, from its first step or from a checkpoint of its own."""
        # What happened before (another stage, in this process or not) must not change what is drawn.
        set_seed(self.args.seed)
        self.eeve_run.begin()
        begun = time.monotonic()
        if resume_from_checkpoint and self._ended_at(resume_from_checkpoint):
            result = self._take(resume_from_checkpoint)
        else:
            result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self.eeve_run.record["steps"] = self.state.global_step
        self.eeve_run.history = self._history(time.monotonic() - begun)
        self.eeve_run.finish(self.args.output_dir, self.optimizer)
        return result

    def _ended_at(self, checkpoint: str) -> bool:
        """Whether the stage had nothing left to do at `checkpoint`: transformers would train a step more."""
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        if 0 < self.args.max_steps <= state.global_step:
            return True
        end = self.eeve_run.schedule[self.eeve_run.number].until_converged
        return end is not None and has_converged(state, end)

    def _take(self, checkpoint: str) -> None:
        """Take a stage's end from its last checkpoint: the run was killed between that and its record."""
        self.create_optimizer_and_scheduler(num_training_steps=self.args.max_steps)
        self._load_from_checkpoint(checkpoint)
        self._load_optimizer_and_scheduler(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))

    def _save_checkpoint(self, model, trial, **kwargs) -> None:
        """Axolotl's checkpoint, with a mark when it is whole."""
        super()._save_checkpoint(model, trial, **kwargs)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            if folder.is_dir():
                (folder / WHOLE).touch()

    def _history(self, seconds: float) -> dict:
        """Loss by step, and what the stage cost; of a resumed stage, the seconds since it resumed."""
        steps = [
            {key: entry[key] for key in ("step", "loss", "learning_rate") if key in entry}
            for entry in self.state.log_history
            if "loss" in entry
        ]
        return {
            "tokens_per_step": _tokens_per_step(self),
            "seconds": round(seconds, 1),
            "steps": steps,
            "versions": {name: version(name) for name in ("torch", "transformers", "axolotl")},
            "settings": json.loads(json.dumps(self.axolotl_cfg.to_dict(), default=str)),
        }

    def _train_schedule(self, resume_from_checkpoint=None, **kwargs):
        run, output = self.eeve_run, Path(self.args.output_dir)
        for each in run.schedule:
            _own(self, each)  # a batch that does not divide is told now, not at its stage's turn
        names = [each.resolved().name for each in run.schedule]
        first = self._resume_schedule(output, names, resume_from_checkpoint)
        if run.settings.keep_schedule:
            self._all_steps = self._count_all_steps()
        self._steps_before = sum(
            (read_json_if_there(output / f"stage{name}" / RECORD) or {}).get("steps", 0)
            for name in names[:first]
        )
        for number in range(first, len(names)):
            if number != run.number or run.frozen is None:
                self._leave_stage()
                run.enter(number, self.model)
            LOG.info("stage %s (%d of %d in this run)", names[number], number + 1, len(names))
            checkpoints = output / "checkpoints" / f"stage{names[number]}"
            checkpoint = None
            if run.auto_resume:
                checkpoint = last_whole_checkpoint(checkpoints)
            elif number == first and resume_from_checkpoint:
                checkpoint = resume_from_checkpoint
            self._log_to(output, names[number])
            with _Overrides(self, output_dir=str(checkpoints)):
                result = self._train_stage(checkpoint, **kwargs)
            self._steps_before += self.state.global_step
            if not run.is_last:
                self._save_stage(output, names, number)
        return result

    def _count_all_steps(self) -> int:
        steps = [_steps(self, each) for each in self.eeve_run.schedule]
        if min(steps) <= 0:
            raise EEVEError("`keep_schedule` needs to know every stage's steps: set max_steps, or max_tokens")
        return sum(steps)

    def _log_to(self, output: Path, name: str) -> None:
        """TensorBoard draws each stage as a run of its own: all count their steps from 0."""
        parent = Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or output / "runs")
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                callback.logging_dir = str(parent / f"stage{name}")

    def _resume_schedule(self, output: Path, names: list[str], resume_from_checkpoint) -> int:
        """Which stage to begin with; what the stage before it left is in the model afterwards."""
        run = self.eeve_run
        if resume_from_checkpoint:
            found = re.search(r"checkpoints/stage([^/]+)/checkpoint-\d+/?$", str(resume_from_checkpoint))
            if found is None or found[1] not in names:
                raise EEVEError(
                    f"resume_from_checkpoint: {resume_from_checkpoint} is not a checkpoint of one of the stages "
                    f"{', '.join(names)}; give {output}/checkpoints/stageN/checkpoint-M"
                )
            return names.index(found[1])  # a checkpoint has the whole model
        if not run.auto_resume:
            return 0
        for number in reversed(range(len(names) - 1)):
            stage = output / f"stage{names[number]}"
            if read_record(stage) is not None:
                LOG.info("stage %s is done: going on after it", names[number])
                self._load_from_checkpoint(str(stage))
                if run.settings.keep_optimizer and (stage / OPTIMIZER).is_file():
                    here = {"cuda:0": str(self.args.device)}  # the main process wrote it, and each reads it
                    self._carried = torch.load(stage / OPTIMIZER, map_location=here, weights_only=True)
                return number + 1
        return 0

    def _leave_stage(self) -> None:
        """Let go of the stage before: its optimiser, its schedule and the model's wrapping."""
        if self.eeve_run.settings.keep_optimizer and self.optimizer is not None:
            self._carried = self._state_by_name()
        self.optimizer = self.lr_scheduler = None
        self.model_wrapped = self.model
        self.model.zero_grad(set_to_none=True)
        self.model.gradient_checkpointing_disable()  # the next stage's settings switch it on again
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _state_by_name(self) -> dict:
        """The optimiser's state for what this stage trains."""
        trained = self.eeve_run.frozen.trained_parameters().items()
        return {name: self.optimizer.state.get(each) for name, each in trained}

    def _save_stage(self, output: Path, names: list[str], number: int) -> None:
        """Write a finished stage's weights and record beside, and move them into place."""
        run = self.eeve_run
        place, keep = output / f"stage{names[number]}", run.settings.save_stages
        main = self.is_world_process_zero()
        with replacing(place) if main else nullcontext(place) as directory:
            if keep != "none":
                self.save_model(str(directory))  # only the main process writes
                if main and run.settings.keep_optimizer:
                    torch.save(self._state_by_name(), directory / OPTIMIZER)
            run.write_record(directory)
        if main and keep == "last" and number > 0:
            before = output / f"stage{names[number - 1]}"
            for large in (*before.glob("*.safetensors*"), *before.glob(OPTIMIZER)):
                large.unlink()
        self.accelerator.wait_for_everyone()


def _momenta(state: dict) -> list[torch.Tensor]:
    """What an optimiser keeps for each weight; a step count is a tensor too, but of one number."""
    return [each for each in state.values() if isinstance(each, torch.Tensor) and each.dim()]


class _Overrides:
    """A stage's own settings on the trainer, taken back afterwards."""

    def __init__(self, trainer: EEVETrainer, **args):
        self.trainer, self.args = trainer, args

    def __enter__(self) -> None:
        trainer, run = self.trainer, self.trainer.eeve_run
        stage = run.schedule[run.number]
        self.args |= _own(trainer, stage)
        if stage.max_tokens is not None:
            self.args["max_steps"] = _steps(trainer, stage)
            LOG.info("max_tokens: %s tokens are %d steps", f"{stage.max_tokens:,}", self.args["max_steps"])
        if not run.stage.backward_through_layers:
            self.args["gradient_checkpointing"] = False
            trainer.model.gradient_checkpointing_disable()
        self._before = {name: getattr(trainer.args, name) for name in self.args}
        self._set(self.args)
        self._callbacks = []
        if stage.until_converged is not None:
            self._callbacks.append(UntilConverged(stage.until_converged))
        if run.settings.evaluate is not None:
            self._callbacks.append(HeldOut(trainer, run.settings.evaluate))
        for callback in self._callbacks:
            trainer.add_callback(callback)

    def __exit__(self, *_) -> None:
        self._set(self._before)
        for callback in self._callbacks:
            self.trainer.remove_callback(callback)

    def _set(self, args: dict) -> None:
        """Set `args` on the trainer, and what it has copied from them."""
        trainer = self.trainer
        for name, value in args.items():
            setattr(trainer.args, name, value)
        trainer.accelerator.gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
        trainer._train_batch_size = trainer.args.train_batch_size
        trainer.state.train_batch_size = trainer.args.train_batch_size  # Axolotl packs batches of this size


def _own(trainer, stage: ScheduledStage) -> dict:
    """What a stage sets for itself, as the trainer calls it; the accumulation follows from a global batch."""
    own = {theirs: getattr(stage, ours) for ours, theirs in OVERRIDES.items()}
    whole = trainer.eeve_run.settings.global_batch_size
    if whole and stage.micro_batch_size:
        processes = trainer.args.world_size
        own["gradient_accumulation_steps"] = accumulation_steps(whole, stage.micro_batch_size, processes)
    return {name: value for name, value in own.items() if value is not None}


def _steps(trainer, stage: ScheduledStage) -> int:
    """Steps of a stage at most: by its `max_steps` or the run's, and its token budget."""
    own = _own(trainer, stage)
    limit = own.get("max_steps", trainer.args.max_steps)
    if stage.max_tokens is None:
        return limit
    steps = steps_for(stage.max_tokens, _tokens_per_step(trainer, **own))
    return min(steps, limit) if limit > 0 else steps


def last_whole_checkpoint(directory: Path) -> str | None:
    """The newest checkpoint in `directory` that was written to its end, or None."""
    found = [path.parent for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{WHOLE}")]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def _tokens_per_step(trainer, **own: int) -> int:
    """Tokens in an optimiser step, padding counted, by the trainer's settings or those given instead."""
    batch, accumulation = (
        own.get(name, getattr(trainer.args, name))
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    return trainer.axolotl_cfg.sequence_len * batch * accumulation * trainer.args.world_size


class UntilConverged(TrainerCallback):
    """Ends a stage when its logged loss has converged; a resumed stage counts what was logged before."""

    def __init__(self, settings: ConvergenceSettings):
        self.settings = settings

    def on_log(self, args, state, control, **kwargs):
        """Look at all losses of the stage so far, each standing for the steps since the one before."""
        if has_converged(state, self.settings):
            LOG.info("the loss has converged after %d steps", state.global_step)
            control.should_training_stop = True
        return control


class HeldOut(TrainerCallback):
    """Scores held-out texts during a stage and at its end. Every process does, as sharded models need."""

    def __init__(self, trainer: EEVETrainer, settings: EvaluateSettings):
        self.trainer, self.every = trainer, settings.every_steps
        self._scored = 0
        base_size = trainer.eeve_run.vocabulary.base_size
        self.first_subwords = first_subwords(trainer.processing_class, base_size)
        self.texts = {name: read_texts(path, settings.limit) for name, path in settings.texts.items()}

    def on_step_end(self, args, state, control, **kwargs):
        """Score where it is time to, and after the last step: while trackers still listen."""
        if control.should_training_stop or (self.every and state.global_step % self.every == 0):
            self._score(args)
            self._scored = state.global_step

    def on_train_end(self, args, state, control, **kwargs):
        """Score at the end of a stage that converged, which is known only after its last step."""
        if self._scored != state.global_step:
            self._score(args)

    def _score(self, args) -> None:
        model, tokenizer = self.trainer.model, self.trainer.processing_class
        length = self.trainer.axolotl_cfg.sequence_len
        training = model.training
        figures = {}
        with self.trainer.compute_loss_context_manager():  # bf16 or fp16, as the stage trains
            for name, texts in self.texts.items():
                found = score(
                    model,
                    tokenizer,
                    texts,
                    max_length=length,
                    batch_size=args.per_device_train_batch_size,
                    first_subwords=self.first_subwords,
                )
                for figure, value in found.figures().items():
                    figures[f"eeve/{name}/{figure}"] = round(value, 5)
        model.train(training)
        self.trainer.log(figures)


def has_converged(state: TrainerState, settings: ConvergenceSettings) -> bool:
    """Whether the logged losses of a stage have converged, each standing for the steps since the one before."""
    losses, before = [], 0
    for entry in state.log_history:
        if "loss" in entry:
            losses += [float(entry["loss"])] * (entry["step"] - before)
            before = entry["step"]
    return converged(losses, **settings.model_dump())
