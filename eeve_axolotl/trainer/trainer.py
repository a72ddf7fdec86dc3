"""The stages inside the trainer's lifecycle: one after another, each with an optimiser that cannot touch
frozen rows, and each with its proof."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from axolotl.core.trainers.base import AxolotlTrainer
from transformers import TrainerCallback, TrainerState, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import replacing
from eeve_axolotl.logs import logger
from eeve_axolotl.records import (
    CHECKPOINT,
    OPTIMIZER,
    RECORD,
    STAGE_RECORD,
    WHOLE,
    checkpoints_directory,
    is_ours,
    last_whole_checkpoint,
    read,
    read_record,
    stage_directory,
)
from eeve_axolotl.rows import FrozenRows
from eeve_axolotl.run import StageRun
from eeve_axolotl.text import text_read
from eeve_axolotl.trainer.arguments import disable_checkpointing, optimizer_steps, stage_arguments
from eeve_axolotl.trainer.callbacks import HeldOut, TellProgress, UntilConverged, has_converged
from eeve_axolotl.trainer.rates import RatesMixin
from eeve_axolotl.trainer.settings import chosen
from eeve_axolotl.trainer.text_batches import ReadsOnMixin

LOG = logger("trainer")

# What a history tells of a step, as it is logged.
_OF_A_STEP = ("step", "loss", "learning_rate", "eeve/input_learning_rate", "eeve/output_learning_rate")


class EEVETrainer(RatesMixin, ReadsOnMixin, AxolotlTrainer):
    """Axolotl's trainer for EEVE's stages.

    A recipe names it as `trainer_cls`, so that the recipe cannot run where this package is missing:
    Axolotl would skip the plugin with a line in the log and train every parameter.
    """

    eeve_run: StageRun | None = None
    _steps: list[OptimizerStep]  # what an optimiser step of each stage is
    _text_before: dict | None = None  # what the stage before has read
    _carried: dict[str, Any] | None = None  # with `keep_optimizer`: state of the stage before, by parameter
    _steps_before = 0  # in the stages before this one
    _all_steps: int | None = None  # with `keep_schedule`: of all stages

    @property
    def _run(self) -> StageRun:
        assert self.eeve_run is not None  # train has looked
        return self.eeve_run

    @property
    def _output(self) -> Path:
        assert self.args.output_dir is not None  # Axolotl's config always has one
        return Path(self.args.output_dir)

    @property
    def frozen_rows(self) -> FrozenRows:
        """What the stage froze in the trainer's model."""
        assert self._run.frozen is not None  # the model was loaded through the plugin's hooks
        return self._run.frozen

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Axolotl's optimiser, held to what the stage trains; with `keep_optimizer`, its state carried over."""
        optimizer = super().create_optimizer(model)
        for name, parameter in self.frozen_rows.trained_parameters().items():
            state = (self._carried or {}).get(name)
            # The same rows: a matrix that trains whole from now on starts afresh.
            if state and all(each.shape == parameter.shape for each in _momenta(state)):
                optimizer.state[parameter] = state
        self._carried = None
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """A schedule of the stage's own; with `keep_schedule`, that of all stages, gone on with."""
        if self._all_steps is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        scheduler = super().create_scheduler(self._all_steps, optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no optimiser stepped: in the stages before, one did
            for _ in range(self._steps_before):
                scheduler.step()
        return scheduler

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """What Axolotl logs, with the stage, for whatever tracker its config names."""
        if self.eeve_run is not None:
            name = self.eeve_run.stage.name
            logs["eeve/stage"] = int(name) if name.isdigit() else name
            logs["eeve/step"] = self._steps_before + self.state.global_step  # each stage counts from 0
        if not math.isfinite(logs.get("loss", 0.0)):
            raise EEVEError(
                f"the loss of step {self.state.global_step} is {logs['loss']}; lower learning_rate, look at the text, and "
                f"go on from the last checkpoint before it in {self.args.output_dir}"
            )
        super().log(logs, *args, **kwargs)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """Axolotl's; where the loss alone is wanted it is made as in training, without whole logits."""
        chunked = self.eeve_run and self.eeve_run.chunked_loss
        if not chunked:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        chunked.in_evaluation = prediction_loss_only
        try:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            chunked.in_evaluation = False

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train every stage of the schedule, with a fingerprint of everything frozen around each.

        Raises rows.FrozenMovedError if a frozen value has changed; SystemExit for what a user can put right.
        """
        if self.eeve_run is None:
            raise SystemExit(
                "eeve_axolotl: `trainer_cls` names EEVETrainer but the plugin is not listed; add "
                "`plugins: [eeve_axolotl.EEVEPlugin]`"
            )
        try:
            self._text_before = text_read(self.axolotl_cfg.base_model)
            # Worked out before anything trains: a batch that does not divide is told now, not at its stage's turn.
            self._steps = optimizer_steps(self.args, self.axolotl_cfg.sequence_len, self._run.settings)
            if len(self._steps) == 1:
                with self._as_the_stage_says():
                    if resume_from_checkpoint is True or (resume_from_checkpoint and self._run.auto_resume):
                        resume_from_checkpoint = last_whole_checkpoint(self._output)
                    return self._train_stage(resume_from_checkpoint or None, *args, **kwargs)
            return self._train_schedule(resume_from_checkpoint, *args, **kwargs)
        except EEVEError as error:
            raise SystemExit(f"eeve_axolotl: {error}") from None

    def _as_the_stage_says(self, **others: Any) -> AbstractContextManager[None]:
        """The settings of the stage that the run is in, and what watches it while it trains."""
        run = self._run
        stage, step = run.schedule[run.number], self._steps[run.number]
        callbacks: list[TrainerCallback] = [TellProgress(run.stage.name, self._steps_before, step.tokens)]
        if stage.until_converged is not None:
            callbacks.append(UntilConverged(stage.until_converged))
        if run.settings.evaluate is not None:
            assert run.vocabulary is not None
            base_size, length = run.vocabulary.base_size, self.axolotl_cfg.sequence_len
            callbacks.append(HeldOut(self, run.settings.evaluate, base_size, length))
        return stage_arguments(self, stage, step, callbacks, **others)

    def _train_stage(self, checkpoint: str | None, *args: Any, **kwargs: Any) -> TrainOutput:
        """The stage that the run is in, from its first step or from a checkpoint of its own."""
        # What happened before (another stage, in this process or not) must not change what is drawn.
        set_seed(self.args.seed)
        self.args.logging_nan_inf_filter = (
            False  # it would log a mean of others in place of what is not finite
        )
        run = self._run
        run.begin()
        again = run.settings.text == "again"
        self.begin_text(None if again else self._text_before, checkpoint)
        begun = time.monotonic()
        if checkpoint is not None and self._ended_at(checkpoint):
            result = self._take(checkpoint)
        else:
            result = super().train(checkpoint, *args, **kwargs)
        run.record["steps"] = self.state.global_step
        run.record["text"] = self._text_before = self.text_record()
        run.history = self._history(time.monotonic() - begun)
        run.finish(self._output, self.optimizer)
        return result

    def _ended_at(self, checkpoint: str) -> bool:
        """Whether the stage had nothing left to do at `checkpoint`: transformers would train a step more."""
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        if 0 < self.args.max_steps <= state.global_step:
            return True
        end = self._run.schedule[self._run.number].until_converged
        return end is not None and has_converged(state, end)

    def _take(self, checkpoint: str) -> TrainOutput:
        """Take a stage's end from its last checkpoint: the run was killed between that and its record."""
        self.create_optimizer_and_scheduler(num_training_steps=self.args.max_steps)
        self._load_from_checkpoint(checkpoint)
        self._load_optimizer_and_scheduler(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        return TrainOutput(self.state.global_step, 0.0, {})  # no step was trained

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Axolotl's; a checkpoint whose optimiser has other groups of parameters is told in words."""
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            raise EEVEError(
                f"the optimiser's state in {checkpoint} is of other groups of parameters than stage "
                f"{self._run.stage.name} has: `input_learning_rate` or `output_learning_rate` came or went since, or the "
                "checkpoint is another stage's; put the keys back as they were, or start the stage without the checkpoint"
            ) from None

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any, **kwargs: Any) -> None:
        """Axolotl's checkpoint, with a mark when it is whole."""
        super()._save_checkpoint(model, trial, **kwargs)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            folder = Path(self._get_output_dir(trial)) / f"{CHECKPOINT}-{self.state.global_step}"
            if folder.is_dir():
                self.write_text(folder)
                (folder / WHOLE).touch()

    def _history(self, seconds: float) -> dict:
        """Loss by step, and what the stage cost; of a resumed stage, the seconds since it resumed."""
        steps = [
            {key.removeprefix("eeve/"): entry[key] for key in _OF_A_STEP if key in entry}
            for entry in self.state.log_history
            if "loss" in entry
        ]
        return {
            "tokens_per_step": self._steps[self._run.number].tokens,
            "seconds": round(seconds, 1),
            "steps": steps,
            "versions": {name: version(name) for name in ("torch", "transformers", "axolotl")},
            "settings": chosen(self.axolotl_cfg),
        }

    def _train_schedule(
        self, resume_from_checkpoint: str | bool | None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Every stage of a run of several, each into a directory of its own."""
        run, output = self._run, self._output
        names = [each.resolved().name for each in run.schedule]
        first = self._resume_schedule(output, names, resume_from_checkpoint)
        if run.settings.keep_schedule:
            self._all_steps = self._count_all_steps()
        self._steps_before = sum(
            (read(stage_directory(output, name) / RECORD, STAGE_RECORD) or {}).get("steps", 0)
            for name in names[:first]
        )
        for number in range(first, len(names)):
            if number != run.number or run.frozen is None:
                self._leave_stage()
                run.enter(number, self.model)
            LOG.info("stage %s (%d of %d in this run)", names[number], number + 1, len(names))
            checkpoints = checkpoints_directory(output, names[number])
            checkpoint = None
            if run.auto_resume:
                checkpoint = last_whole_checkpoint(checkpoints)
            elif number == first and resume_from_checkpoint:
                checkpoint = str(resume_from_checkpoint)
            self._log_to(output, names[number])
            with self._as_the_stage_says(output_dir=str(checkpoints)):
                result = self._train_stage(checkpoint, *args, **kwargs)
            self._steps_before += self.state.global_step
            if not run.is_last:
                self._save_stage(output, names, number)
        return result

    def _count_all_steps(self) -> int:
        limits = [each.max_steps for each in self._steps if each.max_steps]
        if len(limits) < len(self._steps):
            raise EEVEError("`keep_schedule` needs to know every stage's steps: set max_steps, or max_tokens")
        return sum(limits)

    def _log_to(self, output: Path, name: str) -> None:
        """TensorBoard draws each stage as a run of its own: all count their steps from 0."""
        parent = Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or output / "runs")
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                callback.logging_dir = str(parent / f"stage{name}")

    def _resume_schedule(
        self, output: Path, names: list[str], resume_from_checkpoint: str | bool | None
    ) -> int:
        """Which stage to begin with; what the stage before it left is in the model afterwards."""
        run = self._run
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
            stage = stage_directory(output, names[number])
            record = read_record(stage)
            if record is not None:
                LOG.info("stage %s is done: going on after it", names[number])
                self._load_from_checkpoint(str(stage))
                self._text_before = record.get("text")
                if run.settings.keep_optimizer and (stage / OPTIMIZER).is_file():
                    here = {"cuda:0": str(self.args.device)}  # the main process wrote it, and each reads it
                    self._carried = torch.load(stage / OPTIMIZER, map_location=here, weights_only=True)
                return number + 1
        return 0

    def _leave_stage(self) -> None:
        """Let go of the stage before: its optimiser, its schedule and the model's wrapping."""
        if self._run.settings.keep_optimizer and self.optimizer is not None:
            self._carried = self._state_by_name()
        self.optimizer = self.lr_scheduler = None
        model = self.model
        assert model is not None
        self.model_wrapped = model
        model.zero_grad(set_to_none=True)
        disable_checkpointing(self)  # the next stage's settings switch it on again
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _state_by_name(self) -> dict[str, Any]:
        """The optimiser's state for what this stage trains."""
        assert self.optimizer is not None
        trained = self.frozen_rows.trained_parameters().items()
        return {name: self.optimizer.state.get(each) for name, each in trained}

    def _save_stage(self, output: Path, names: list[str], number: int) -> None:
        """Write a finished stage's weights and record beside, and move them into place."""
        run = self._run
        place, keep = stage_directory(output, names[number]), run.settings.save_stages
        main = self.is_world_process_zero()
        with replacing(place, is_ours) if main else nullcontext(place) as directory:
            if keep != "none":
                self.save_model(str(directory))  # only the main process writes
                if main and run.settings.keep_optimizer:
                    torch.save(self._state_by_name(), directory / OPTIMIZER)
            run.write_record(directory)
        if main and keep == "last" and number > 0:
            before = stage_directory(output, names[number - 1])
            for large in (*before.glob("*.safetensors*"), *before.glob(OPTIMIZER)):
                large.unlink()
        self.accelerator.wait_for_everyone()


def _momenta(state: dict) -> list[torch.Tensor]:
    """What an optimiser keeps for each weight; a step count is a tensor too, but of one number."""
    return [each for each in state.values() if isinstance(each, torch.Tensor) and each.dim()]
