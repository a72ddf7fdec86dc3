"""What a stage means for one model: which rows of which matrix train, and what is frozen whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.rows.sharded import is_partitioned, shape_of
from eeve_axolotl.stages import Layers, Rows, Stage


@dataclass(frozen=True)
class MatrixMask:
    """The rows [start, stop) of one embedding matrix train; its `total - (stop - start)` others do not.

    A bias of the output embeddings (Phi-2 has one) has one entry a row and follows the same range.
    """

    role: str  # "input_embeddings" or "output_embeddings"
    module: str  # dotted name of the module inside the model
    rows: Rows
    start: int
    stop: int
    total: int
    has_bias: bool = False

    @property
    def trained(self) -> int:
        """How many rows train."""
        return self.stop - self.start

    @property
    def frozen(self) -> int:
        """How many rows must stay bit-identical."""
        return self.total - self.trained


@dataclass(frozen=True)
class RowMask:
    """A stage applied to a model. With `tied` the two matrices are one and both masks name the same rows."""

    stage: Stage
    inputs: MatrixMask
    outputs: MatrixMask
    tied: bool

    @property
    def matrices(self) -> tuple[MatrixMask, ...]:
        """The distinct matrices: one if tied, else input and output embeddings."""
        return (self.inputs,) if self.tied else (self.inputs, self.outputs)

    @property
    def backward_through_layers(self) -> bool:
        """Whether a gradient must pass the internal layers. If not, gradient checkpointing buys nothing."""
        return self.stage.internal_layers is not Layers.FROZEN or self.inputs.rows is not Rows.NONE


def row_mask(model: nn.Module, stage: Stage, base_vocab_size: int, vocab_size: int | None = None) -> RowMask:
    """Work out which rows of `model` train in `stage`.

    With tied embeddings a stage must treat both matrices alike. "None" and "all" (stage 4) then means all
    rows of the one matrix; stages 1, 2 and 5 have no meaning and are refused.

    Args:
        base_vocab_size: tokens of the base tokenizer: the first new row.
        vocab_size: tokens of the extended tokenizer. Rows beyond it are padding
            (`resize_token_embeddings_to_32x`). Where "new" rows train, padding rows stay frozen in the input
            embeddings, which nothing reads there, and train with the new rows in the output embeddings, because
            the softmax counts them: frozen they would keep their share of the probability.

    Raises EEVEError where model and stage do not fit.
    """
    table, head = _embedding_module(model, "input"), _embedding_module(model, "output")
    tied = _weight(table) is _weight(head)
    inputs, outputs = stage.input_embeddings, stage.output_embeddings
    if tied and inputs is not outputs:
        if stage.needs_two_matrices:
            raise EEVEError(stage.refuses_one_matrix())
        inputs = Rows.ALL
    table_rows = shape_of(_weight(table))[0]
    if vocab_size is not None and vocab_size > table_rows:
        raise EEVEError(
            f"The tokenizer has {vocab_size} tokens but the model only {table_rows} input embeddings: resize the "
            "model's embeddings to the tokenizer before freezing rows."
        )
    new_rows = (base_vocab_size, vocab_size)
    return RowMask(
        stage=stage,
        # A tied matrix is also the output embeddings, whose padding rows the softmax counts.
        inputs=_matrix_mask(model, stage, "input_embeddings", table, inputs, new_rows, padding_trains=tied),
        outputs=_matrix_mask(model, stage, "output_embeddings", head, outputs, new_rows, padding_trains=True),
        tied=tied,
    )


def _matrix_mask(
    model: nn.Module,
    stage: Stage,
    role: str,
    module: nn.Module,
    rows: Rows,
    new_rows: tuple[int, int | None],
    padding_trains: bool,
) -> MatrixMask:
    """The mask of one matrix; `new_rows` is where new rows begin, and where padding begins (None: nowhere)."""
    name, words = _name(model, module), role.replace("_", " ")
    weight = _weight(module)
    total = shape_of(weight)[0]
    if rows is not Rows.NONE and not weight.is_floating_point():
        raise EEVEError(
            f"Stage {stage.name} trains rows of the {words} ({name}), but they are quantised ({weight.dtype}): load "
            "the model unquantised, or keep this matrix out of the quantisation (`llm_int8_skip_modules`)."
        )
    start, stop = 0, 0
    if rows is Rows.ALL:
        stop = total
    elif rows is Rows.NEW:
        start, padding = new_rows
        stop = total if padding_trains or padding is None else min(padding, total)
        if stop <= start:
            raise EEVEError(
                f"Stage {stage.name} trains the new rows of the {words}, but there are none: the model has {total} "
                f"rows and the base tokenizer {start} tokens; give the extended tokenizer as `tokenizer_config` and "
                "resize the embeddings to it, or correct `eeve.base_vocab_size`."
            )
        if getattr(module, "max_norm", None) is not None:
            raise EEVEError(
                f"{name} renormalises its rows as it reads them (max_norm), so frozen rows cannot stay as they are: "
                "build the model with max_norm=None."
            )
    return MatrixMask(
        role=role,
        module=name,
        rows=rows,
        start=start,
        stop=stop,
        total=total,
        has_bias=module._parameters.get("bias") is not None,
    )


def row_count(model: nn.Module) -> int:
    """Rows of the input embeddings, also where DeepSpeed ZeRO-3 has partitioned them."""
    return shape_of(_weight(_embedding_module(model, "input")))[0]


def untie(model: nn.Module) -> bool:
    """Give a model with tied embeddings an output matrix of its own, a copy of the input embeddings.

    After it all seven stages make sense, and checkpoints say `tie_word_embeddings: false`. Does nothing to
    a model whose embeddings are two matrices already. Returns whether they were one.

    Raises EEVEError where DeepSpeed ZeRO-3 has partitioned the one matrix.
    """
    table, head = _embedding_module(model, "input"), _embedding_module(model, "output")
    weight = _weight(table)
    tied = weight is _weight(head)
    if tied:
        if is_partitioned(weight):
            raise EEVEError(
                "Tied embeddings cannot be untied once DeepSpeed ZeRO-3 has partitioned the model: save an untied copy "
                "of the model first (one process), then train that."
            )
        head._parameters["weight"] = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    # Newer transformers tie by the class's list of keys where the configuration says so; a composite model
    # (vision and text) repeats the setting in its text configuration.
    config = getattr(model, "config", None)
    if config is not None:
        config.tie_word_embeddings = False
        text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
        text_config.tie_word_embeddings = False
    tied_keys = getattr(model, "get_expanded_tied_weights_keys", None)
    if tied_keys is not None:  # a mapping that transformers 5 keeps from the start
        model.all_tied_weights_keys = tied_keys(all_submodels=True)
    return tied


def _weight(module: nn.Module) -> nn.Parameter:
    """The registered Parameter, whatever `module.weight` shows."""
    weight = module._parameters.get("weight")
    assert weight is not None  # _embedding_module has looked
    return weight


def _embedding_module(model: nn.Module, side: str) -> nn.Module:
    """The module that really holds the matrix, beneath PEFT's `modules_to_save` wrapper."""
    accessor = getattr(model, f"get_{side}_embeddings", None)
    try:
        module = accessor() if accessor is not None else None
    except (NotImplementedError, AttributeError):
        module = None
    copies = getattr(module, "modules_to_save", None)
    if module is not None and copies is not None and hasattr(module, "original_module"):
        module = copies[module.active_adapters[0]]
    if hasattr(module, "base_layer"):
        raise EEVEError(
            f"The {side} embeddings carry a LoRA adapter of their own: take them out of `lora_target_modules` and name "
            "them in `lora_modules_to_save`, where they train in full."
        )
    weight = module._parameters.get("weight") if module is not None else None
    if module is None or weight is None or len(shape_of(weight)) != 2:
        raise EEVEError(
            f"{type(model).__name__} has no {side} embeddings that `get_{side}_embeddings()` can give: use a causal "
            "language model with an embedding matrix and an output head."
        )
    return module


def _name(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, each in model.named_modules() if each is module)
