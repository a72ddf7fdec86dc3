"""Liger's fused loss beside the plain one, in Triton's interpreter, which must be chosen before Triton is imported.

Prints, for each stage, the largest difference between the gradients, and the largest gradient.
"""

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from liger_kernel.transformers.model.llama import lce_forward
from transformers import LlamaConfig, LlamaForCausalLM

from eeve_axolotl import rows
from eeve_axolotl.stages import STAGES

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def gradients(stage: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).train()
    frozen = rows.freeze(model, rows.row_mask(model, STAGES[stage], 40, 60))
    ids = torch.randint(0, 60, (2, 8))
    model(input_ids=ids, labels=ids).loss.backward()
    trained = frozen.trained_parameters().values()
    return [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]


plain = {stage: gradients(stage) for stage in range(1, 6)}
LlamaForCausalLM.forward = lce_forward
found = {}
for stage, expected in plain.items():
    fused = gradients(stage)
    found[stage] = {
        "difference": max(
            (one - other).abs().max().item() for one, other in zip(fused, expected, strict=True)
        ),
        "largest": max(each.abs().max().item() for each in fused),
    }
print(json.dumps(found))
