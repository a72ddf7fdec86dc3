"""Frozen layers in 8 bits: what a stage only reads is read in FP8, and what is saved are the base's own bits.

    trunk = hold_in_fp8(model)  # once rows are frozen, before the model is wrapped
    ...  # forward passes, and backward passes to what lies below; nothing of the layers trains
    model.state_dict()  # the layers' own weights, as they were loaded
    trunk.remove()  # the layers as they were, on their device

This package knows torch, and the accessor `get_output_embeddings` of transformers. `float8` is the arithmetic, `linear`
a linear module that computes so and keeps its own weight apart, `trunk` puts a model's linear modules into that
state and takes them out again, and `device` says where it can run.
"""

from eeve_axolotl.frozen_precision.trunk import Float8Trunk, hold_in_fp8

__all__ = ["Float8Trunk", "hold_in_fp8"]
