"""Peak memory of one GPU in a stage, in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch

from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.frozen_precision.float8 import fits, held_bytes
from eeve_axolotl.losses.linear_cross_entropy import tokens_per_chunk
from eeve_axolotl.planner.shapes import Saved, Shape, saved_bytes
from eeve_axolotl.stages import Layers, Rows, Stage

BYTES_PER_LOGIT = 12
"""Cross-entropy's peak in 32 bits, at its backward pass: the log-probabilities that were kept, the gradient of
the picked ones, and the gradient of the logits; 4 bytes each."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in bitsandbytes' NF4: 4 bits, a byte for each 64 of them, 4 bytes for each 256 of those bytes."""

# Bytes of state a trained parameter, None: two values of the parameter's own dtype (AdamW).
STATE_BYTES = {
    "adamw_torch": None,
    "adamw_torch_fused": None,
    "adamw_bnb_8bit": 2,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 2,
}


class HeadLoss(str, Enum):
    """How the head's loss is made."""

    PLAIN = "plain"  # from logits that are whole
    CHUNKED = "chunked"  # ours: some tokens at a time
    FUSED = "fused"  # by Liger or cut cross-entropy


@dataclass(frozen=True)
class Training:
    """What of a run's YAML its memory depends on."""

    rows: int  # of the extended matrices, padding included
    base_rows: int  # ids below are old
    step: OptimizerStep
    dtype: torch.dtype = torch.bfloat16
    embeddings_dtype: torch.dtype = torch.bfloat16
    checkpointing: bool = False
    head_loss: HeadLoss = HeadLoss.CHUNKED
    in_fp8: bool = False  # the frozen layers' linear weights
    optimizer: str = "adamw_torch_fused"
    lora_rank: int = 0
    tied: bool = False
    shards: tuple[str, ...] = ()  # of weights, gradients, optimizer: what is spread over the GPUs

    @property
    def gpus(self) -> int:
        """How many GPUs train, one process each."""
        return self.step.processes

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens of a micro batch on one GPU."""
        return self.step.micro_batch * self.step.sequence_len


@dataclass(frozen=True)
class Trained:
    """Parameters that train."""

    embeddings: int
    adapters: int
    layers: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embeddings + self.adapters + self.layers


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    total: float


def trained(shape: Shape, stage: Stage, training: Training) -> Trained:
    """Parameters that train: rows x hidden of each matrix (with a biased head, rows more), the adapters'
    rank x (in + out), or all of the layers. In a tied model the two matrices count once."""
    new = training.rows - training.base_rows
    counts = {Rows.NONE: 0, Rows.NEW: new, Rows.ALL: training.rows}
    inputs, outputs = counts[stage.input_embeddings], counts[stage.output_embeddings]
    matrices = max(inputs, outputs) if training.tied else inputs + outputs
    qlora = stage.internal_layers is Layers.QLORA
    return Trained(
        embeddings=matrices * shape.hidden + outputs * shape.head_bias,
        adapters=shape.adapter_parameters(training.lora_rank) if qlora else 0,
        layers=shape.linear_parameters + shape.other if stage.internal_layers is Layers.FULL else 0,
    )


def memory(shape: Shape, stage: Stage, training: Training, saved: Saved | None = None) -> Memory:
    """Peak bytes on one GPU.

    weights      parameters x bytes of their dtype. With QLoRA the linear weights take NF4_BYTES, the adapters 4,
                 and PEFT keeps an untrained copy beside each embedding matrix that trains. Frozen layers in FP8 take what
                 `_in_fp8` says.
    gradients    trained parameters x bytes of their dtype, twice under DDP (its buckets are copies).
    optimizer    trained parameters x 2 x bytes of their dtype (AdamW), or what STATE_BYTES says.
    activations  kept for the backward pass (see `shapes.saved_bytes`, and for an adapter the rank values between its
                 two matrices): tokens x (outside + layers x a layer), or
                 with checkpointing tokens x (outside + layers x hidden + one layer, made anew). Where nothing runs
                 backward through the layers, tokens x one layer, while it is computed.
    logits       what the head's loss holds at its peak: tokens x rows x BYTES_PER_LOGIT where logits are whole, what
                 `_held_by_chunks` says where they are made in chunks, 0 with a fused loss.
    total        weights + gradients + optimizer + the peak of activations and logits: the logits come when every
                 layer is kept, but before any layer is made anew. Layers that are read in FP8 are first loaded as
                 they are: never less than that.

    Sharding (FSDP2, ZeRO) divides what it shards by the GPUs; the layer that is gathered is not counted.
    """
    # long: a third of it is the docstring, which is the formula term by term.
    saved = saved or saved_bytes(shape.config, stage, training.dtype)
    size, of_embeddings = training.dtype.itemsize, training.embeddings_dtype.itemsize
    counts = trained(shape, stage, training)

    def spread(what: str, total: float) -> float:
        return total / training.gpus if what in training.shards else total

    embeddings = shape.embedding_parameters(training.rows, training.tied)
    weights: float = shape.other * size + embeddings * of_embeddings
    if stage.internal_layers is Layers.QLORA:
        copies = 0 if training.tied else counts.embeddings  # a tied model's one copy is the adapter's own
        weights += shape.linear_parameters * NF4_BYTES + counts.adapters * 4 + copies * of_embeddings
    else:
        weights += _in_fp8(shape, size) if training.in_fp8 else shape.linear_parameters * size

    loaded: float = 0
    if training.in_fp8:
        loaded = (shape.other + shape.linear_parameters) * size + embeddings * of_embeddings

    in_bytes: float = counts.embeddings * of_embeddings + counts.adapters * 4 + counts.layers * size
    buckets = 2 if training.gpus > 1 and not training.shards else 1
    state = STATE_BYTES.get(training.optimizer)
    # bitsandbytes keeps the state of embeddings in 32 bits (see rows.freezing).
    states: float = (
        2 * in_bytes if state is None else state * (counts.total - counts.embeddings) + 8 * counts.embeddings
    )

    tokens, layers, layer = training.micro_batch_tokens, shape.layers, saved.layer
    if stage.internal_layers is Layers.QLORA:
        layer += training.lora_rank * size * len(shape.linear) / layers
    logits = {
        HeadLoss.PLAIN: tokens * training.rows * BYTES_PER_LOGIT,
        HeadLoss.CHUNKED: _held_by_chunks(shape, stage, training),
        HeadLoss.FUSED: 0,
    }[training.head_loss]
    outside = tokens * saved.outside
    if not stage.backward_through_layers:
        transient = _frozen_layer(shape, training)
        activations, peak = transient, max(transient, outside + logits)
    elif training.checkpointing:
        kept = outside + tokens * layers * shape.hidden * size
        activations = kept + tokens * layer
        peak = max(activations, kept + logits)
    else:
        activations = outside + tokens * layers * layer
        peak = activations + max(logits, tokens * layer)

    weights, gradients = spread("weights", weights), spread("gradients", in_bytes * buckets)
    optimizer = spread("optimizer", states)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        total=max(weights + gradients + optimizer + peak, loaded),
    )


def _in_fp8(shape: Shape, size: int) -> float:
    """Bytes of the layers' linear weights where those that can be are held in FP8: a byte each and 4 for each row's
    scale. A matrix laid out anew for a moment, or a micro batch's values in 8 bits, is not counted."""
    return sum(
        held_bytes(rows, columns) if fits(rows, columns) else rows * columns * size
        for columns, rows in shape.linear
    )


def _held_by_chunks(shape: Shape, stage: Stage, training: Training) -> float:
    """What the loss in chunks holds: a chunk's logits, their logarithmic softmax in 32 bits (in which its gradient is
    made), and that gradient in 16 bits if the logits have 16; the gradients that it makes on the way, of the hidden
    states where something below trains and, in 32 bits, of the trained rows, which in the end are 16 bits too if the
    rows have 16; and the head in the run's dtype where it is kept in another."""
    size, rows, tokens = training.dtype.itemsize, training.rows, training.micro_batch_tokens
    counts = {Rows.NONE: 0, Rows.NEW: rows - training.base_rows, Rows.ALL: rows}
    trained_rows = counts[stage.output_embeddings]
    columns = rows if stage.backward_through_layers else trained_rows
    of_16_bits = size if size < 4 else 0
    chunk = tokens_per_chunk(tokens, rows) * (rows * (size + 4) + columns * of_16_bits)
    is_cast = training.embeddings_dtype != training.dtype
    of_hidden = tokens * shape.hidden * size if stage.backward_through_layers else 0
    of_rows = trained_rows * (shape.hidden + shape.head_bias) * 4
    at_the_end = 0 if is_cast else trained_rows * shape.hidden * of_16_bits
    cast = rows * shape.hidden * size if is_cast else 0
    return of_hidden + of_rows + max(chunk + cast, at_the_end)


def _frozen_layer(shape: Shape, training: Training) -> float:
    """What one layer holds while it is computed and nothing is kept: at most what a backward pass through it
    would need."""
    through = Stage("through", Rows.NEW, Rows.NONE, Layers.FROZEN)
    return training.micro_batch_tokens * saved_bytes(shape.config, through, training.dtype).layer
