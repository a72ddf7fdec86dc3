"""What happens while a stage trains: its end when the loss has converged, held-out texts, and progress for a chain."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from eeve_axolotl import progress
from eeve_axolotl.args import ConvergenceSettings, EvaluateSettings
from eeve_axolotl.evaluation.inspection import first_subwords
from eeve_axolotl.evaluation.scoring import read_texts, score
from eeve_axolotl.logs import logger
from eeve_axolotl.rows import row_count
from eeve_axolotl.schedule import converged

LOG = logger("trainer")

_LOGITS = 2**30
"""At most so many are made at once to score held-out text, 4 bytes each and copies: where the head's loss makes none,
a micro batch may be larger than what its logits leave room for."""


class UntilConverged(TrainerCallback):
    """Ends a stage when its logged loss has converged; a resumed stage counts what was logged before."""

    def __init__(self, settings: ConvergenceSettings):
        self.settings = settings

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Look at all losses of the stage so far."""
        if has_converged(state, self.settings):
            LOG.info("the loss has converged after %d steps", state.global_step)
            control.should_training_stop = True
        return control


def has_converged(state: TrainerState, settings: ConvergenceSettings) -> bool:
    """Whether the logged losses of a stage have converged, each standing for the steps since the one before."""
    losses: list[float] = []
    before = 0
    for entry in state.log_history:
        if "loss" in entry:
            step = int(entry["step"])
            losses += [float(entry["loss"])] * (step - before)
            before = step
    return converged(losses, **settings.model_dump())


class HeldOut(TrainerCallback):
    """Scores held-out texts during a stage and at its end. Every process does, as sharded models need.

    Args:
        trainer: whose model is scored, and which logs the figures.
        base_size: tokens of the base tokenizer.
        max_length: tokens in a forward pass.
    """

    def __init__(self, trainer: Trainer, settings: EvaluateSettings, base_size: int, max_length: int):
        self.trainer, self.every, self.max_length = trainer, settings.every_steps, max_length
        self._scored = 0
        self.first_subwords = first_subwords(trainer.processing_class, base_size)
        self.texts = {name: read_texts(path, settings.limit) for name, path in settings.texts.items()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Score where it is time to, and after the last step: while trackers still listen."""
        if control.should_training_stop or (self.every and state.global_step % self.every == 0):
            self._score(args)
            self._scored = state.global_step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Score at the end of a stage that converged, which is known only after its last step."""
        if self._scored != state.global_step:
            self._score(args)

    def _score(self, args: TrainingArguments) -> None:
        model = self.trainer.model
        assert model is not None  # while it trains
        training = model.training
        rows = row_count(model)
        batch = max(1, min(args.per_device_train_batch_size, _LOGITS // (self.max_length * rows)))
        figures = {}
        with self.trainer.compute_loss_context_manager():  # bf16 or fp16, as the stage trains
            for name, texts in self.texts.items():
                found = score(
                    model,
                    self.trainer.processing_class,
                    texts,
                    max_length=self.max_length,
                    batch_size=batch,
                    first_subwords=self.first_subwords,
                )
                for figure, value in found.figures().items():
                    figures[f"eeve/{name}/{figure}"] = round(value, 5)
        model.train(training)
        self.trainer.log(figures)


class TellProgress(TrainerCallback):
    """Tells the chain that started this process, if one did, of each step whose loss is logged.

    Args:
        stage: the stage's name.
        steps_before: steps of the run's stages before this one.
        tokens_per_step: tokens of an optimiser step, over all processes, padding counted.
    """

    def __init__(self, stage: str, steps_before: int, tokens_per_step: int):
        self.stage, self.steps_before, self.tokens_per_step = stage, steps_before, tokens_per_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Tell it from the main process."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        progress.tell(
            progress.LoggedStep(
                stage=self.stage,
                step=self.steps_before + state.global_step,
                max_steps=state.max_steps if state.max_steps > 0 else None,
                loss=float(logs["loss"]),
                tokens_per_step=self.tokens_per_step,
            )
        )
