"""The stages inside the trainer's lifecycle: one after another, each with an optimiser that cannot touch
frozen rows, and each with its proof."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from axolotl.core.trainers.base import AxolotlTrainer
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from eeve_axolotl.args import ConvergenceSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.rows import FrozenRowsMixin
from eeve_axolotl.run import read_record
from eeve_axolotl.schedule import converged, steps_for

LOG = logger("trainer")

class EEVETrainer(FrozenRowsMixin, AxolotlTrainer):
    """Axolotl's trainer for EEVE's stages.

    A recipe names it as `trainer_cls`, so that the recipe cannot run where this package is missing:
    Axolotl would skip the plugin with a line in the log and train every parameter.
    """

    eeve_run = None

    @property
    def frozen_rows(self):
        """What the stage froze in the trainer's model."""
        return self.eeve_run.frozen

    def log(self, logs: dict, *args, **kwargs) -> None:
        """What Axolotl logs, with the stage, for whatever tracker its config names."""
        if self.eeve_run is not None:
            name = self.eeve_run.stage.name
            logs["eeve/stage"] = int(name) if name.isdigit() else name
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
                    return self._train_stage(resume_from_checkpoint, **kwargs)
            return self._train_schedule(resume_from_checkpoint, **kwargs)
        except EEVEError as error:
            raise SystemExit(f"eeve_axolotl: {error}") from None

    def _train_stage(self, resume_from_checkpoint=None, **kwargs):
        """The stage that the run is in, from its first step or from a checkpoint of its own."""
        # What happened before (another stage, in this process or not) must not change what is drawn.
        set_seed(self.args.seed)
        self.eeve_run.begin()
        result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self.eeve_run.finish(self.args.output_dir, self.optimizer)
        return result

    def _train_schedule(self, resume_from_checkpoint=None, **kwargs):
        run, output = self.eeve_run, Path(self.args.output_dir)
        names = [each.resolved().name for each in run.schedule]
        first = self._resume_schedule(output, names, resume_from_checkpoint)
        for number in range(first, len(names)):
            if number != run.number or run.frozen is None:
                self._leave_stage()
                run.enter(number, self.model)
            LOG.info("stage %s (%d of %d in this run)", names[number], number + 1, len(names))
            checkpoints = output / "checkpoints" / f"stage{names[number]}"
            checkpoint = None
            if run.auto_resume and checkpoints.is_dir():
                checkpoint = get_last_checkpoint(str(checkpoints))
            elif number == first and resume_from_checkpoint:
                checkpoint = resume_from_checkpoint
            with _Overrides(self, output_dir=str(checkpoints)):
                result = self._train_stage(checkpoint, **kwargs)
            if not run.is_last:
                self._save_stage(output, names, number)
        return result

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
                return number + 1
        return 0

    def _leave_stage(self) -> None:
        """Let go of the stage before: its optimiser, its schedule and the model's wrapping."""
        # To do: `keep_optimizer`.
        self.optimizer = self.lr_scheduler = None
        self.model_wrapped = self.model
        self.model.zero_grad(set_to_none=True)
        self.model.gradient_checkpointing_disable()  # the next stage's settings switch it on again
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _save_stage(self, output: Path, names: list[str], number: int) -> None:
        """Write a finished stage's weights and record beside, and move them into place."""
        run = self.eeve_run
        place, keep = output / f"stage{names[number]}", run.settings.save_stages
        beside = place.with_name(f"{place.name}.unfinished")
        main = self.is_world_process_zero()
        if main:
            shutil.rmtree(beside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if keep != "none":
            self.save_model(str(beside))
        if main:
            run.write_record(beside)
            shutil.rmtree(place, ignore_errors=True)
            beside.rename(place)
            if keep == "last" and number > 0:
                for weights in (output / f"stage{names[number - 1]}").glob("*.safetensors*"):
                    weights.unlink()
        self.accelerator.wait_for_everyone()


class _Overrides:
    """A stage's own settings on the trainer, taken back afterwards."""

    def __init__(self, trainer: EEVETrainer, **args):
        self.trainer, self.args = trainer, args

    def __enter__(self) -> None:
        trainer, stage = self.trainer, self.trainer.eeve_run.schedule[self.trainer.eeve_run.number]
        for name in ("max_steps", "learning_rate", "warmup_steps", "gradient_accumulation_steps"):
            if getattr(stage, name) is not None:
                self.args[name] = getattr(stage, name)
        accumulation = self.args.get("gradient_accumulation_steps", trainer.args.gradient_accumulation_steps)
        if stage.max_tokens is not None:
            steps = steps_for(stage.max_tokens, _tokens_per_step(trainer, accumulation))
            limit = self.args.get("max_steps", trainer.args.max_steps)
            self.args["max_steps"] = min(steps, limit) if limit > 0 else steps
            LOG.info("max_tokens: %s tokens are %d steps", f"{stage.max_tokens:,}", steps)
        if not trainer.eeve_run.stage.backward_through_layers:
            self.args["gradient_checkpointing"] = False
            trainer.model.gradient_checkpointing_disable()
        self._before = {name: getattr(trainer.args, name) for name in self.args}
        for name, value in self.args.items():
            setattr(trainer.args, name, value)
        trainer.accelerator.gradient_accumulation_steps = accumulation
        self._callback = None
        if stage.until_converged is not None:
            self._callback = UntilConverged(stage.until_converged)
            trainer.add_callback(self._callback)

    def __exit__(self, *_) -> None:
        for name, value in self._before.items():
            setattr(self.trainer.args, name, value)
        self.trainer.accelerator.gradient_accumulation_steps = self.trainer.args.gradient_accumulation_steps
        if self._callback is not None:
            self.trainer.remove_callback(self._callback)


def _tokens_per_step(trainer, accumulation: int) -> int:
    args = trainer.args
    length = trainer.axolotl_cfg.sequence_len
    return length * args.per_device_train_batch_size * accumulation * args.world_size


class UntilConverged(TrainerCallback):
    """Ends a stage when its logged loss has converged; a resumed stage counts what was logged before."""

    def __init__(self, settings: ConvergenceSettings):
        self.settings = settings

    def on_log(self, args, state, control, **kwargs):
        """Look at all losses of the stage so far, each standing for the steps since the one before."""
        losses, before = [], 0
        for entry in state.log_history:
            if "loss" in entry:
                losses += [float(entry["loss"])] * (entry["step"] - before)
                before = entry["step"]
        if converged(losses, **self.settings.model_dump()):
            LOG.info("the loss has converged after %d steps", state.global_step)
            control.should_training_stop = True
        return control
