"""Every optimiser that Axolotl offers and that runs on a CPU, built the way transformers or Axolotl builds it."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import Trainer, TrainingArguments

TRANSFORMERS = [
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_8bit",
    "adamw_torch_4bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "lion_8bit",
    "lion_32bit",
    "ademamix_8bit",
    "rmsprop_bnb_8bit",
    "adafactor",
    "adagrad",
    "sgd",
    "schedule_free_adamw",
    "schedule_free_sgd",
]
OPTIONAL = {"grokadamw": "grokadamw"}  # optimiser -> the package it needs
AXOLOTL = ["muon", "adopt_adamw", "adamc", "sinkgd", "ao_adamw_fp8"]
AXOLOTL_OPTIONAL = {"came_pytorch": "came_pytorch", "optimi_adamw": "optimi"}
ALL = [*TRANSFORMERS, *OPTIONAL, *AXOLOTL, *AXOLOTL_OPTIONAL]


def build(name: str, model, folder, lr: float = 1e-2, decay: float = 0.1) -> torch.optim.Optimizer:
    needs = {**OPTIONAL, **AXOLOTL_OPTIONAL}.get(name)
    if needs is not None:
        pytest.importorskip(needs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in TRANSFORMERS or name in OPTIONAL:
            arguments = TrainingArguments(
                str(folder), use_cpu=True, optim=name, learning_rate=lr, weight_decay=decay, report_to=[]
            )
            optimizer = Trainer(model=model, args=arguments).create_optimizer()
        else:
            optimizer = _build_as_axolotl(name, model, folder, lr, decay)
    if hasattr(optimizer, "train"):  # schedule-free optimisers have a mode
        optimizer.train()
    return optimizer


def _build_as_axolotl(name, model, folder, lr, decay):
    """As axolotl.core.builders.base and its OptimizerMixin do."""
    from axolotl.core.trainers.mixins.optimizer import OptimizerMixin
    from axolotl.core.training_args import AxolotlTrainingArguments

    kwargs = {"lr": lr, "weight_decay": decay, "betas": (0.9, 0.999), "eps": 1e-8}
    if name == "muon":
        from axolotl.contribs.mit.muon import MuonOptimizerFactory as cls
    elif name == "adopt_adamw":
        from axolotl.utils.optimizers.adopt import ADOPT as cls

        kwargs["decouple"] = True
    elif name == "adamc":
        from axolotl.utils.optimizers.adamc import AdamC as cls
    elif name == "sinkgd":
        from axolotl.utils.optimizers.sinkgd import SinkGDOptimizerFactory as cls
    elif name == "ao_adamw_fp8":
        from torchao.optim.adam import AdamWFp8 as cls
    elif name == "came_pytorch":
        from came_pytorch import CAME as cls

        kwargs.update(betas=(0.9, 0.999, 0.9999), eps=(1e-30, 1e-16))
    elif name == "optimi_adamw":
        from optimi import AdamW as cls

        kwargs["foreach"] = False
    else:
        raise ValueError(name)

    class AxolotlLikeTrainer(OptimizerMixin, Trainer):
        pass

    arguments = AxolotlTrainingArguments(
        str(folder), use_cpu=True, learning_rate=lr, weight_decay=decay, report_to=[]
    )
    trainer = AxolotlLikeTrainer(model=model, args=arguments, optimizer_cls_and_kwargs=(cls, kwargs))
    return trainer.create_optimizer()
