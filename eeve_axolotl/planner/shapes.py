"""A model's sizes from its config.json alone: built on the meta device, nothing is loaded or stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.planner.configs import CONFIGS
from eeve_axolotl.stages import Layers, Rows, Stage

ATTENTION = "eeve_plan"  # our stand-in for flash-attention in transformers' table


@dataclass(frozen=True)
class Shape:
    """What sizes and FLOPs follow from. Counts are of parameters unless said otherwise."""

    config: dict
    rows: int  # of the embedding matrices, in the checkpoint
    hidden: int
    layers: int
    attention_width: int  # heads x head size
    tied: bool
    head_bias: bool
    linear: tuple[tuple[int, int], ...]  # (in, out) of every linear module inside the layers
    other: int  # everything that is neither an embedding matrix, nor its bias, nor a linear weight

    @property
    def linear_parameters(self) -> int:
        """Sum of in x out over the linear modules of the layers."""
        return sum(inputs * outputs for inputs, outputs in self.linear)

    def embedding_parameters(self, rows: int, tied: bool) -> int:
        """`rows` x hidden for each distinct matrix, and `rows` more for a biased head."""
        return rows * self.hidden * (1 if tied else 2) + rows * self.head_bias

    def adapter_parameters(self, rank: int) -> int:
        """LoRA on every linear module: rank x (in + out) each."""
        return sum(rank * (inputs + outputs) for inputs, outputs in self.linear)


def read_config(base_model: str) -> dict:
    """The config.json in a local directory, or of a hub model that we carry the shape of.

    Raises EEVEError where there is neither.
    """
    # Imported here: benchmarks/gpu plans where pydantic is not installed, and has the shape already.
    from eeve_axolotl.records import CONFIG, MODEL_CONFIG, read

    path = Path(base_model) / CONFIG
    if path.is_file():
        return read(path, MODEL_CONFIG) or {}
    if base_model in CONFIGS:
        return CONFIGS[base_model]
    raise EEVEError(
        f"the shape of {base_model} is not known here; download its config.json and give the directory "
        f"with --base-model, or one of {', '.join(CONFIGS)}"
    )


def shape_of(config: dict) -> Shape:
    """The sizes of the model that `config` (a config.json) describes.

    Raises EEVEError for a mixture of experts, whose FLOPs are not counted here.
    """
    model = _on_meta(config)
    text = model.config.get_text_config()
    if any(getattr(text, key, None) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise EEVEError("a mixture of experts cannot be planned; plan a dense model")
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    inside = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    linear = tuple((module.in_features, module.out_features) for module in inside)
    head_bias = head.bias is not None
    tied = head.weight is table.weight
    embeddings = table.weight.numel() * (1 if tied else 2) + (head.out_features if head_bias else 0)
    heads = text.num_attention_heads
    return Shape(
        config=config,
        rows=table.num_embeddings,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        attention_width=heads * (getattr(text, "head_dim", None) or text.hidden_size // heads),
        tied=tied,
        head_bias=head_bias,
        linear=linear,
        other=sum(each.numel() for each in model.parameters())
        - embeddings
        - sum(inputs * outputs for inputs, outputs in linear),
    )


@dataclass(frozen=True)
class Saved:
    """Bytes a token that autograd keeps for the backward pass: of one layer, and of all that is no layer."""

    layer: float
    outside: float


def saved_bytes(config: dict, stage: Stage, dtype: torch.dtype, length: int = 256) -> Saved:
    """What the backward pass of `stage` needs from the forward pass, in bytes a token, logits left out.

    Recorded, not estimated: the model's own code runs on the meta device with one layer and with two, while
    `saved_tensors_hooks` adds up every storage that is neither a parameter nor seen before. The difference is
    a layer. Attention keeps its q, k, v, output and log-sum-exp, as flash-attention does. A frozen linear
    layer keeps nothing, one with an adapter its input, which the recording shows by itself.
    """
    one, two = (_recorded(config, stage, dtype, length, layers) for layers in (1, 2))
    return Saved(layer=(two - one) / length, outside=(2 * one - two) / length)


def _recorded(config: dict, stage: Stage, dtype: torch.dtype, length: int, layers: int) -> int:
    small = {**config, "num_hidden_layers": layers, "layer_types": None, "use_cache": False}
    model = _on_meta(small, dtype)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    model.requires_grad_(stage.internal_layers is Layers.FULL)
    if stage.internal_layers is Layers.QLORA:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.requires_grad_(True)
    table.weight.requires_grad_(stage.input_embeddings is not Rows.NONE)
    if head.weight is not table.weight:
        head.weight.requires_grad_(stage.output_embeddings is not Rows.NONE)
    parameters = {each.untyped_storage()._cdata for each in model.parameters()}
    kept = {}  # the storages themselves: an address is unique only while they live

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros((1, length), dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(input_ids=ids, use_cache=False)
    total = sum(storage.nbytes() for storage in kept.values())
    del output
    return total


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value):
        batch, heads, length, _ = query.shape
        output = query.new_empty((batch, length, heads, value.shape[-1]))
        ctx.save_for_backward(
            query, key, value, output, query.new_empty(query.shape[:3], dtype=torch.float32)
        )
        return output


def _attention(module, query, key, value, mask, **_):
    return _FlashAttention.apply(query, key, value), None


def _on_meta(config: dict, dtype: torch.dtype = torch.bfloat16):
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
    settings = {
        key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")
    }
    try:
        parsed = AutoConfig.for_model(config["model_type"], **settings)
    except (KeyError, ValueError):
        raise EEVEError(
            f"config.json names the model type {config.get('model_type')!r}, which transformers does not have; "
            "give a causal language model's"
        ) from None
    except Exception as error:  # each architecture checks its keys in its own way
        raise _no_model(config, error) from None
    parsed._attn_implementation = ATTENTION
    with torch.device("meta"):
        try:
            return AutoModelForCausalLM.from_config(parsed, dtype=dtype)
        except Exception as error:  # likewise
            raise _no_model(config, error) from None


def _no_model(config: dict, error: Exception) -> EEVEError:
    said = (" ".join(str(error).split()) or type(error).__name__)[:200]
    return EEVEError(
        f"no {config.get('model_type')!r} model can be made of config.json ({said}); give that of the base model"
    )
