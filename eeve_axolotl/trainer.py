"""The stage inside the trainer's lifecycle: an optimiser that cannot touch frozen rows, and the proof."""

from __future__ import annotations

from axolotl.core.trainers.base import AxolotlTrainer

from eeve_axolotl.rows import FrozenRowsMixin


class EEVETrainer(FrozenRowsMixin, AxolotlTrainer):
    """Axolotl's trainer for one EEVE stage.

    A recipe names it as `trainer_cls`, so that the recipe cannot run where this package is missing:
    Axolotl would skip the plugin with a line in the log and train every parameter.
    """

    eeve_run = None

    @property
    def frozen_rows(self):
        """What the stage froze in the trainer's model."""
        return self.eeve_run.frozen

    def train(self, *args, **kwargs):
        """Train, with a fingerprint of everything frozen before and after.

        Raises rows.FrozenMovedError if a frozen value has changed; SystemExit if the plugin is not listed.
        """
        if self.eeve_run is None:
            raise SystemExit(
                "eeve_axolotl: `trainer_cls` names EEVETrainer but the plugin is not listed; add "
                "`plugins: [eeve_axolotl.EEVEPlugin]`"
            )
        self.eeve_run.begin()
        result = super().train(*args, **kwargs)
        self.eeve_run.finish(self.args.output_dir, self.optimizer)
        return result
