"""What frozen_rows.py compares: three ways to freeze rows, on random models of SOLAR's proportions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from eeve_axolotl import rows
from eeve_axolotl.losses.chunked import use_chunked_loss
from eeve_axolotl.stages import STAGES, Rows

EMBEDDING_STAGES = (1, 2, 3, 4, 5)
SOLAR = {"hidden": 4096, "layers": 48, "vocab": 40_960, "base": 32_000}
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OURS, AXOLOTL, PEFT = "this project", "Axolotl's ranges", "PEFT's trainable tokens"


@dataclass(frozen=True)
class Shape:
    """A Llama of SOLAR's proportions: heads of 1/32 of the width, four to a key-value head, MLP 3.5 wide."""

    hidden: int
    layers: int
    vocab: int
    base: int

    def config(self) -> LlamaConfig:
        """The transformers config of this shape, untied."""
        heads = 32 if self.hidden >= 1024 else 8
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 7 // 2,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 4,
            tie_word_embeddings=False,
        )

    def model(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LlamaForCausalLM:
        """A model with random weights, the same at each call."""
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                return LlamaForCausalLM(self.config()).train()
        finally:
            torch.set_default_dtype(before)

    def meta_model(self) -> LlamaForCausalLM:
        """The model's shapes without storage."""
        return self.model(device="meta")

    def batches(self, count: int, size: int, length: int, device: str = "cpu") -> list[torch.Tensor]:
        """`count` batches of random token ids, (size, length)."""
        generator = torch.Generator().manual_seed(1)
        return [
            torch.randint(0, self.vocab, (size, length), generator=generator).to(device) for _ in range(count)
        ]


@dataclass
class Frozen:
    """A model that one of the methods prepared for a stage."""

    model: nn.Module
    protect: Callable[[torch.optim.Optimizer], torch.optim.Optimizer]
    plain: Callable[[dict], dict]  # from the prepared model's (gathered) state dict to the plain model's


@dataclass
class Trainable:
    """A model to train, its optimiser, and the way back to a plain state dict."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    weights: Callable[[], dict[str, torch.Tensor] | None]  # None on ranks that gather nothing

    def step(self, ids: torch.Tensor) -> None:
        """One optimiser step on a batch."""
        self.model(input_ids=ids, labels=ids).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def ours(model: nn.Module, stage: int, base: int) -> Frozen:
    """This project's rows: a Parameter of their own."""
    frozen = rows.freeze(model, rows.row_mask(model, STAGES[stage], base))
    return Frozen(model, frozen.protect, frozen.merge)


def ours_whole(model: nn.Module, stage: int, base: int) -> Frozen:
    """This project as it trains by default: its rows, and the head's loss in chunks."""
    frozen = ours(model, stage, base)
    assert use_chunked_loss(model)
    return frozen


def axolotl_ranges(model: nn.Module, stage: int, base: int) -> Frozen:
    """`unfrozen_parameters` as Axolotl applies it: its own function, and gradients of the inputs asked for."""
    from axolotl.utils.freeze import freeze_layers_except

    patterns = []
    for name, what in ((TABLE, STAGES[stage].input_embeddings), (HEAD, STAGES[stage].output_embeddings)):
        if what is not Rows.NONE:
            patterns.append(f"^{name}$" + (f"[{base}:]" if what is Rows.NEW else ""))
    freeze_layers_except(model, patterns)
    model.enable_input_require_grads()
    return Frozen(model, lambda optimizer: optimizer, lambda state: state)


def peft_tokens(model: nn.Module, stage: int, base: int) -> Frozen:
    """PEFT's TrainableTokensConfig for new rows; a matrix of which all rows train is simply unfrozen."""
    from peft import TrainableTokensConfig, get_peft_model

    parts = {"embed_tokens": STAGES[stage].input_embeddings, "lm_head": STAGES[stage].output_embeddings}
    new = [name for name, what in parts.items() if what is Rows.NEW]
    model.requires_grad_(False)
    wrapped = model
    if new:
        tokens = list(range(base, model.config.vocab_size))
        wrapped = get_peft_model(model, TrainableTokensConfig(target_modules=new, token_indices=tokens))
    for name, module in (("embed_tokens", model.model.embed_tokens), ("lm_head", model.lm_head)):
        if parts[name] is Rows.ALL:
            module.weight.requires_grad_(True)

    def plain(state: dict) -> dict:
        state = {name.removeprefix("base_model.model."): value for name, value in state.items()}
        found = {name.replace(".base_layer.", "."): value.clone() for name, value in state.items()}
        for name, value in state.items():
            if ".trainable_tokens_delta." in name:
                found[name.partition(".trainable_tokens_delta.")[0] + ".weight"][base:] = value
        return found

    return Frozen(wrapped, lambda optimizer: optimizer, plain)


METHODS = {OURS: ours, AXOLOTL: axolotl_ranges, PEFT: peft_tokens}


def with_adamw(frozen: Frozen, decay: float = 0.1) -> Trainable:
    """A prepared model in one process, with torch's AdamW over what requires a gradient."""
    trained = [each for each in frozen.model.parameters() if each.requires_grad]
    optimizer = frozen.protect(torch.optim.AdamW(trained, lr=1e-3, weight_decay=decay))
    return Trainable(frozen.model, optimizer, lambda: frozen.plain(frozen.model.state_dict()))


def frozen_rows(shape: Shape, stage: int) -> dict[str, int]:
    """How many rows of each embedding matrix the stage freezes, counted from its first row."""
    counts = {Rows.NONE: shape.vocab, Rows.NEW: shape.base, Rows.ALL: 0}
    return {
        TABLE: counts[STAGES[stage].input_embeddings],
        HEAD: counts[STAGES[stage].output_embeddings],
    }


def count_moved(before: dict, after: dict, frozen: dict[str, int]) -> tuple[int, int]:
    """Rows of which at least one bit has changed: (of those that are frozen, of those that train)."""
    frozen_moved = trained_moved = 0
    for name, count in frozen.items():
        one, other = (
            weights[name].detach().cpu().contiguous().view(torch.uint8) for weights in (before, after)
        )
        changed = (one != other).any(1)
        frozen_moved += int(changed[:count].sum())
        trained_moved += int(changed[count:].sum())
    return frozen_moved, trained_moved


def time_in_turn(
    works: dict[str, Callable[[torch.Tensor], None]],
    data: Iterable[torch.Tensor],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each work on each batch. The order rotates; the first batch is a warm-up and not kept."""
    names, seconds = list(works), {name: [] for name in works}
    for turn, ids in enumerate(data):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = clock()
            works[name](ids)
            if turn:
                seconds[name].append(clock() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> list[float]:
    """Time of `one` / time of `other`, turn by turn: the lower quartile, the median, the upper quartile."""
    return statistics.quantiles((a / b for a, b in zip(seconds[one], seconds[other], strict=True)), n=4)


def table(header: list[str], lines: Iterable[list]) -> str:
    """A Markdown table."""
    parts = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(str(each) for each in line) + " |" for line in parts) + "\n"
