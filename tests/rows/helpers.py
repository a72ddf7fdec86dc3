"""Tiny models and training loops shared by the tests of rows; also imported by the two-process workers."""

from __future__ import annotations

import io

import torch
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
)
from transformers.modeling_outputs import CausalLMOutput

from eeve_axolotl import rows
from eeve_axolotl.stages import STAGES, Rows

BASE, VOCAB, HIDDEN = 64, 96, 32
NEW = VOCAB - BASE
EMBEDDING_STAGES = (1, 2, 3, 4, 5)
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def tiny_model(family: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0, **config):
    """A random causal language model of two layers; dropout off, so two runs can be compared."""
    sizes = {**_SIZES, **config}
    if family == "llama":
        configuration = LlamaConfig(**{"num_key_value_heads": 2, "tie_word_embeddings": False, **sizes})
    elif family == "tied_llama":
        configuration = LlamaConfig(**{"num_key_value_heads": 2, "tie_word_embeddings": True, **sizes})
    elif family == "qwen2":
        configuration = Qwen2Config(**{"num_key_value_heads": 2, "tie_word_embeddings": True, **sizes})
    elif family == "gemma":
        configuration = GemmaConfig(**{"num_key_value_heads": 2, "head_dim": 8, **sizes})
    elif family == "gpt_neox":
        configuration = GPTNeoXConfig(**{"hidden_dropout": 0.0, "tie_word_embeddings": False, **sizes})
    elif family == "phi":
        configuration = PhiConfig(**{"tie_word_embeddings": False, **sizes})
    else:
        raise ValueError(family)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(configuration).to(dtype)
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias, std=0.1)
    return model.train()


def batches(steps: int, size: int = 4, length: int = 16, seed: int = 1) -> list[torch.Tensor]:
    """`steps` batches of token ids, old and new, (size, length)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (size, length), generator=generator) for _ in range(steps)]


def mask_for(model, stage: int, **options):
    return rows.row_mask(model, STAGES[stage], BASE, **options)


def snapshot(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def frozen_by_stage(model, stage: int) -> dict[str, slice | None]:
    """By parameter name, what `stage` freezes of it (None: all of it). Written from the paper's table, not
    from the code under test; the embeddings' names come from transformers' accessors."""
    expected = {name: slice(None) for name, _ in model.state_dict().items()}
    named = {id(module): name for name, module in model.named_modules()}
    table, head = named[id(model.get_input_embeddings())], named[id(model.get_output_embeddings())]
    for module, what in ((table, STAGES[stage].input_embeddings), (head, STAGES[stage].output_embeddings)):
        for name in ("weight", "bias"):
            if f"{module}.{name}" in expected:
                frozen = {Rows.NONE: slice(None), Rows.NEW: slice(0, BASE), Rows.ALL: slice(0, 0)}[what]
                expected[f"{module}.{name}"] = frozen
    return expected


def moved(before: dict, after: dict, frozen: dict[str, slice]) -> tuple[int, int]:
    """(frozen rows that moved, trained rows that moved), counting any changed bit; NaN counts as itself."""
    frozen_moved = trained_moved = 0
    for name, span in frozen.items():
        changed = _bits(before[name]) != _bits(after[name])
        changed = changed.reshape(changed.shape[0], -1).any(1)
        frozen_moved += int(changed[span].sum())
        trained_moved += int(changed.sum() - changed[span].sum())
    return frozen_moved, trained_moved


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


def loss_of(model, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, labels=ids).loss


def train(model, optimizer, data, accumulate: int = 1, clip: float | None = None) -> list[float]:
    """Plain training as a Trainer does it: accumulation, clipping over all the model's parameters."""
    losses = []
    for step, ids in enumerate(data):
        loss = loss_of(model, ids) / accumulate
        loss.backward()
        losses.append(loss.item())
        if (step + 1) % accumulate == 0:
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return losses


def whole_and_resumed(start, data) -> tuple:
    """Two models that trained on `data`: one at a stretch, one saved after three batches and begun again from that.

    Args:
        start: makes a model and its optimiser, the same each time.
    """
    whole, optimizer = start()
    train(whole, optimizer, data)
    model, optimizer = start()
    train(model, optimizer, data[:3])
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    model, optimizer = start()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, data[3:])
    return whole, model


def read_past_the_head(model) -> None:
    """Gives `model` a forward that reads the head's weight itself, as Liger and cut cross-entropy do, and for good
    measure the table's."""

    def forward(input_ids, labels):
        embedded = torch.nn.functional.embedding(input_ids, model.get_input_embeddings().weight)
        hidden = model.model(inputs_embeds=embedded).last_hidden_state
        logits = torch.nn.functional.linear(hidden, model.lm_head.weight, model.lm_head.bias)
        return CausalLMOutput(
            loss=model.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        )

    model.forward = forward
