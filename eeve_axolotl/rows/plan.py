"""What a stage means for one model: which rows of which matrix train, and what is frozen whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.stages import Layers, Rows, Stage


@dataclass(frozen=True)
class MatrixPlan:
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
class RowPlan:
    """A stage applied to a model. With `tied` the two matrices are one and both plans name the same rows."""

    stage: Stage
    inputs: MatrixPlan
    outputs: MatrixPlan
    tied: bool

    @property
    def matrices(self) -> tuple[MatrixPlan, ...]:
        """The distinct matrices: one if tied, else input and output embeddings."""
        return (self.inputs,) if self.tied else (self.inputs, self.outputs)

    @property
    def backward_through_layers(self) -> bool:
        """Whether a gradient must pass the internal layers. If not, gradient checkpointing buys nothing."""
        return self.stage.internal_layers is not Layers.FROZEN or self.inputs.rows is not Rows.NONE


def resolve(model: nn.Module, stage: Stage, base_vocab_size: int, vocab_size: int | None = None) -> RowPlan:
    """Works out which rows of `model` train in `stage`.

    `base_vocab_size` is the number of tokens of the base tokenizer: the first new row.
    `vocab_size` is the number of tokens of the extended tokenizer; rows beyond it are padding
    (`resize_token_embeddings_to_32x`). Where "new" rows train, padding rows stay frozen in the input
    embeddings, which nothing reads there, and train with the new rows in the output embeddings, because
    the softmax counts them: frozen they would keep their share of the probability.

    With tied embeddings a stage must treat both matrices alike. "None" and "all" (stage 4) then means all
    rows of the one matrix; stages 1, 2 and 5 have no meaning and are refused.

    Raises EEVEError where model and stage do not fit.
    """
    input_module = _embedding_module(model, "input")
    output_module = _embedding_module(model, "output")
    tied = raw(input_module, "weight") is raw(output_module, "weight")
    inputs_rows, outputs_rows = stage.input_embeddings, stage.output_embeddings
    if tied and inputs_rows is not outputs_rows:
        if (inputs_rows, outputs_rows) != (Rows.NONE, Rows.ALL):
            raise EEVEError(
                f"Stage {stage.name} trains the input and the output embeddings differently, but this model "
                "ties them into one matrix: use stages 3, 4 (which then trains all rows of both), 6 and 7, or set "
                "`eeve.untie: true` to give the model two matrices."
            )
        inputs_rows = Rows.ALL

    def matrix(role: str, module: nn.Module, rows: Rows) -> MatrixPlan:
        weight = raw(module, "weight")
        total = shape_of(weight)[0]
        if rows is not Rows.NONE and not weight.is_floating_point():
            raise EEVEError(
                f"Stage {stage.name} trains rows of the {role.replace('_', ' ')} ({_name(model, module)}), "
                "but they "
                f"are quantised ({weight.dtype}): load the model unquantised, or keep this matrix out of the "
                "quantisation (`llm_int8_skip_modules`)."
            )
        start, stop = 0, 0
        if rows is Rows.ALL:
            stop = total
        elif rows is Rows.NEW:
            start = base_vocab_size
            # A tied matrix is also the output embeddings, whose padding rows the softmax counts.
            reads_padding = role == "output_embeddings" or tied
            stop = total if reads_padding or vocab_size is None else min(vocab_size, total)
            if stop <= start:
                raise EEVEError(
                    f"Stage {stage.name} trains the new rows of the {role.replace('_', ' ')}, but there are "
                    "none: "
                    f"the model has {total} rows and the base tokenizer {base_vocab_size} tokens; give the "
                    "extended "
                    "tokenizer as `tokenizer_config` and resize the embeddings to it, or correct "
                    "`eeve.base_vocab_size`."
                )
            if getattr(module, "max_norm", None) is not None:
                raise EEVEError(
                    f"{_name(model, module)} renormalises its rows as it reads them (max_norm), so frozen "
                    "rows "
                    "cannot stay as they are: build the model with max_norm=None."
                )
        return MatrixPlan(
            role=role,
            module=_name(model, module),
            rows=rows,
            start=start,
            stop=stop,
            total=total,
            has_bias=raw(module, "bias") is not None,
        )

    if vocab_size is not None and vocab_size > shape_of(raw(input_module, "weight"))[0]:
        raise EEVEError(
            f"The tokenizer has {vocab_size} tokens but the model only "
            f"{shape_of(raw(input_module, 'weight'))[0]} input embeddings: resize the model's embeddings to "
            "the "
            "tokenizer before freezing rows."
        )
    return RowPlan(
        stage=stage,
        inputs=matrix("input_embeddings", input_module, inputs_rows),
        outputs=matrix("output_embeddings", output_module, outputs_rows),
        tied=tied,
    )


def row_count(model: nn.Module) -> int:
    """Rows of the input embeddings, also where DeepSpeed ZeRO-3 has partitioned them."""
    return shape_of(raw(_embedding_module(model, "input"), "weight"))[0]


def untie(model: nn.Module) -> bool:
    """Gives a model with tied embeddings an output matrix of its own, a copy of the input embeddings.

    After it all seven stages make sense, and checkpoints say `tie_word_embeddings: false`. Does nothing to
    a model whose embeddings are two matrices already. Returns whether they were one.
    """
    input_module, output_module = _embedding_module(model, "input"), _embedding_module(model, "output")
    weight = raw(input_module, "weight")
    tied = weight is raw(output_module, "weight")
    if tied:
        if hasattr(weight, "ds_id"):
            raise EEVEError(
                "Tied embeddings cannot be untied once DeepSpeed ZeRO-3 has partitioned the model: save an "
                "untied "
                "copy of the model first (one process), then train that."
            )
        output_module._parameters["weight"] = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    # Newer transformers tie by the class's list of keys where the configuration says so; a composite model
    # (vision and text) repeats the setting in its text configuration.
    config = getattr(model, "config", None)
    if config is not None:
        config.tie_word_embeddings = False
        text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
        text_config.tie_word_embeddings = False
    if hasattr(model, "get_expanded_tied_weights_keys"):  # a mapping that transformers 5 keeps from the start
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    return tied


def raw(module: nn.Module, name: str) -> nn.Parameter | None:
    """The registered Parameter behind `module.weight` or `module.bias`, whatever the attribute shows."""
    return module._parameters.get(name)


def shape_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """The whole parameter's shape, also where DeepSpeed ZeRO-3 holds only a piece of it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _embedding_module(model: nn.Module, side: str) -> nn.Module:
    """The module that really holds the matrix, beneath PEFT's `modules_to_save` wrapper."""
    accessor = getattr(model, f"get_{side}_embeddings", None)
    try:
        module = accessor() if accessor is not None else None
    except (NotImplementedError, AttributeError):
        module = None
    copies = getattr(module, "modules_to_save", None)
    if copies is not None and hasattr(module, "original_module"):
        module = copies[module.active_adapters[0]]
    if hasattr(module, "base_layer"):
        raise EEVEError(
            f"The {side} embeddings carry a LoRA adapter of their own: take them out of "
            "`lora_target_modules` and "
            "name them in `lora_modules_to_save`, where they train in full."
        )
    if module is None or raw(module, "weight") is None or len(shape_of(raw(module, "weight"))) != 2:
        raise EEVEError(
            f"{type(model).__name__} has no {side} embeddings that `get_{side}_embeddings()` can give: use "
            "a causal "
            "language model with an embedding matrix and an output head."
        )
    return module


def _name(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, each in model.named_modules() if each is module)
