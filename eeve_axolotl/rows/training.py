"""What a transformers Trainer needs besides, so that frozen rows stay frozen and its checkpoints are ordinary."""

from __future__ import annotations


class FrozenRowsMixin:
    """Put before a transformers Trainer: `class MyTrainer(FrozenRowsMixin, Trainer)`.

    `frozen_rows` must be what `freeze` returned for the trainer's model before training starts.
    """

    frozen_rows = None

    def create_optimizer(self, model=None):
        """The trainer's optimiser, held to what the stage trains."""
        return self.frozen_rows.protect(super().create_optimizer(model))

    def _save(self, output_dir=None, state_dict=None):
        # DeepSpeed ZeRO-3 gathers parameter by parameter: trained rows come beside a stale whole matrix.
        super()._save(output_dir, self.frozen_rows.merge(state_dict) if state_dict else state_dict)
