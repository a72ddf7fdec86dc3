"""Axolotl's trainer, made to train EEVE's stages: what a recipe names as `trainer_cls`."""

from eeve_axolotl.trainer.trainer import EEVETrainer

__all__ = ["EEVETrainer"]
