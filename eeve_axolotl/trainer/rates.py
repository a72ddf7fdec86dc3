"""A stage's learning rates: its own, and those of one embedding matrix, in the optimiser and in what is logged."""

from __future__ import annotations

from typing import Any

import torch

from eeve_axolotl.args import ScheduledStage
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.rows import FrozenRowsMixin, check_marks, give_rates, marks
from eeve_axolotl.run import StageRun


class RatesMixin(FrozenRowsMixin):
    """Put before a trainer whose optimiser has one learning rate: a matrix gets its own where the stage names one."""

    eeve_run: StageRun | None
    _first_peak: float | None = None  # the first group's, from which transformers takes the rate that it logs

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The trainer's optimiser with the stage's rates."""
        if self.optimizer_cls_and_kwargs is not None and self.optimizer is None:
            # Axolotl has put the run's rate in, before any stage said its own.
            made_by, options = self.optimizer_cls_and_kwargs
            self.optimizer_cls_and_kwargs = made_by, {**options, "lr": self.args.learning_rate}
        optimizer = super().create_optimizer(model)
        rates = self._own_rates
        if rates:
            assert self.eeve_run is not None  # it has the rates
            problem = self.frozen_rows.mask.tied and self._stage.refuses_one_matrix(self.args.learning_rate)
            if problem:
                raise EEVEError(problem)
            give_rates(optimizer, self.frozen_rows, rates)
            self._first_peak = float(optimizer.param_groups[0]["lr"])
            self.eeve_run.record["learning_rates"] = {"others": self.args.learning_rate, **rates}
        return optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The trainer's; bitsandbytes' optimisers load a state without a word to anyone, so it is looked at here too."""
        given = marks(self.optimizer) if checkpoint and self.optimizer else []
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and self.optimizer:
            check_marks(self.optimizer, given)

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """What the trainer logs, where `learning_rate` is the stage's, and beside it those of the matrices."""
        if self._own_rates and self._first_peak and "learning_rate" in logs:
            first = logs["learning_rate"]
            if self._first_peak != self.args.learning_rate:
                logs["learning_rate"] = self.args.learning_rate * (first / self._first_peak)
            for matrix, peak in self._own_rates.items():
                logs[logged_as(matrix)] = peak * (first / self._first_peak)
        super().log(logs, *args, **kwargs)

    @property
    def _stage(self) -> ScheduledStage:
        assert self.eeve_run is not None  # its callers have looked
        return self.eeve_run.schedule[self.eeve_run.number]

    @property
    def _own_rates(self) -> dict[str, float]:
        """Peak rates other than the stage's, by matrix."""
        return self._stage.own_rates if self.eeve_run is not None else {}


def logged_as(matrix: str) -> str:
    """What trackers call the rate of a matrix: `eeve/input_learning_rate`."""
    return f"eeve/{matrix.removesuffix('_embeddings')}_learning_rate"
