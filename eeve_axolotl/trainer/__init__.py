"""Axolotl's trainer, made to train EEVE's stages: what a recipe names as `trainer_cls`.

`trainer` trains stage after stage, `arguments` puts a stage's own settings on it meanwhile, `rates` gives an embedding
matrix a learning rate of its own, and `callbacks` are what watches a stage: its loss, held-out texts, progress for a
chain. `text_order` is the order in which a corpus is read, and `text_batches` makes a stage's batches of it.
"""

from eeve_axolotl.trainer.trainer import EEVETrainer

__all__ = ["EEVETrainer"]
