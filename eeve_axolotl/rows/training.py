"""What a transformers Trainer needs besides, so that frozen rows stay frozen and its checkpoints are ordinary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from eeve_axolotl.rows.freezing import FrozenRows

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object  # the trainer that it is put before; nothing here needs transformers


class FrozenRowsMixin(_Trainer):
    """Put before a transformers Trainer: `class MyTrainer(FrozenRowsMixin, Trainer)`."""

    @property
    def frozen_rows(self) -> FrozenRows:
        """What `freeze` returned for the trainer's model, before training starts: a subclass says it."""
        raise NotImplementedError(f"{type(self).__name__} has to set `frozen_rows` to what `freeze` returned")

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The trainer's optimiser, held to what the stage trains."""
        return self.frozen_rows.protect(super().create_optimizer(model))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # DeepSpeed ZeRO-3 gathers parameter by parameter: trained rows come beside a stale whole matrix.
        super()._save(output_dir, self.frozen_rows.merge(state_dict) if state_dict else state_dict)
