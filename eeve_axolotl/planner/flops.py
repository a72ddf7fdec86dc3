"""Floating-point operations of a stage, counted by its matrix products, a token."""

from __future__ import annotations

from eeve_axolotl.planner.memory import Training, trained
from eeve_axolotl.planner.shapes import Shape
from eeve_axolotl.stages import Layers, Stage


def flops_per_token(shape: Shape, stage: Stage, training: Training) -> float:
    """Operations a token, forward and backward, where a multiply-add is two.

    forward         2 x linear parameters + 2 x length x attention width x layers (q.k and the weighted sum of v, over
                    the half that the causal mask leaves) + 2 x rows x hidden for the head + 2 x adapters
    through layers  the same for linear, head and adapters; twice for attention, whose four products each have two
                    operands. Only if the stage trains something below the head: not in stages 2 and 4.
    weights         2 x parameters of what trains by a product: rows of the head, adapters, layers
    made anew       with checkpointing, the layers' forward pass once more but for each layer's last product, before
                    which PyTorch stops since nobody needs it (Gemma's is needed, a norm follows it: too little there)

    A packed batch of short documents attends less than this says.
    """
    counts = trained(shape, stage, training)
    linear = 2 * (shape.linear_parameters + counts.adapters)
    attention = 2 * training.step.sequence_len * shape.attention_width * shape.layers
    head = 2 * training.rows * shape.hidden
    total = linear + attention + head
    if stage.backward_through_layers:
        total += linear + 2 * attention + head
        if training.checkpointing:
            last_in, last_out = shape.linear[-1]
            total += linear + attention - 2 * last_in * last_out * shape.layers
    rows = {"none": 0, "new": training.rows - training.base_rows, "all": training.rows}
    total += 2 * rows[stage.output_embeddings.value] * shape.hidden + 2 * counts.adapters
    if stage.internal_layers is Layers.FULL:
        total += 2 * shape.linear_parameters
    return total


def hours(flops: float, gpus: int, gpu_flops: float, utilisation: float) -> float:
    """Wall-clock hours: flops / (GPUs x their peak x utilisation) / 3600."""
    return flops / (gpus * gpu_flops * utilisation) / 3600
