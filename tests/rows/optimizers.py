"""Every optimiser that Axolotl offers and that runs on a CPU, built the way transformers or Axolotl builds it."""

from __future__ import annotations

import importlib.util
import warnings

import torch
from transformers import Trainer, TrainingArguments

TRANSFORMERS = [
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_8bit",
    "adamw_torch_4bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "lion_32bit",
    "paged_lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "rmsprop",
    "rmsprop_bnb_8bit",
    "adafactor",
    "adagrad",
    "sgd",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "grokadamw",
    "galore_adamw",
    "apollo_adamw",
]
AXOLOTL = ["muon", "adopt_adamw", "adamc", "sinkgd", "ao_adamw_fp8", "came_pytorch", "optimi_adamw"]
ALL = [*TRANSFORMERS, *AXOLOTL]
# Some of each kind under each way of sharding. bitsandbytes and Adafactor cannot step FSDP2's shards, and DeepSpeed
# takes Muon for its own: eeve_axolotl/sharding.py and Axolotl refuse those. The benchmark runs all.
SHARDED = {
    "ddp": ["adafactor", "adamw_bnb_8bit", "lion_8bit", "muon", "schedule_free_adamw"],
    "fsdp2": ["adamw_torch_fused", "adamw_torch_8bit", "muon", "sinkgd", "schedule_free_adamw"],
    "zero1": ["adamw_bnb_8bit"],
    "zero2": ["adafactor", "lion_8bit"],
    "zero3": ["adamw_bnb_8bit", "adamw_torch_fused", "schedule_free_adamw"],
}
_NEEDS = {  # packages that neither Axolotl nor transformers brings
    "grokadamw": "grokadamw",
    "galore_adamw": "galore_torch",
    "apollo_adamw": "apollo_torch",
    "came_pytorch": "came_pytorch",
    "optimi_adamw": "optimi",
}
# GaLore and APOLLO project the gradients of these; the other parameters get AdamW.
_PROJECTED = {"optim_target_modules": ["q_proj", "lm_head"]}


def missing(name: str) -> str | None:
    """The package that the optimiser needs and that is not installed."""
    package = _NEEDS.get(name)
    return package if package is not None and importlib.util.find_spec(package) is None else None


def build(name: str, model, folder, lr: float = 1e-2, decay: float = 0.1, mesh=None) -> torch.optim.Optimizer:
    """The optimiser over what trains in `model`; `mesh` is FSDP2's, of which Axolotl tells Muon and SinkGD."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        use_cpu = next(model.parameters()).device.type == "cpu"
        if name in TRANSFORMERS:
            options = _PROJECTED if name in ("galore_adamw", "apollo_adamw") else {}
            arguments = TrainingArguments(
                str(folder),
                use_cpu=use_cpu,
                optim=name,
                learning_rate=lr,
                weight_decay=decay,
                report_to=[],
                **options,
            )
            optimizer = Trainer(model=model, args=arguments).create_optimizer()
        else:
            optimizer = _build_as_axolotl(name, model, folder, lr, decay, mesh, use_cpu)
    if hasattr(optimizer, "train"):  # schedule-free optimisers have a mode
        optimizer.train()
    return optimizer


def _build_as_axolotl(name, model, folder, lr, decay, mesh, use_cpu):
    """As axolotl.core.builders.base and its OptimizerMixin do."""
    from axolotl.core.trainers.mixins.optimizer import OptimizerMixin
    from axolotl.core.training_args import AxolotlTrainingArguments

    kwargs = {"lr": lr, "weight_decay": decay, "betas": (0.9, 0.999), "eps": 1e-8}
    if name in ("muon", "sinkgd") and mesh is not None:
        kwargs["device_mesh"] = mesh
    if name == "muon" and mesh is not None:
        from axolotl.contribs.mit.muon.dist_muon import DistMuonOptimizerFactory as cls

        del kwargs["eps"]  # it takes none, and by default Axolotl passes none
    elif name == "muon":
        from axolotl.contribs.mit.muon import MuonOptimizerFactory as cls
    elif name == "adopt_adamw":
        from axolotl.utils.optimizers.adopt import ADOPT as cls

        kwargs["decouple"] = True
    elif name == "adamc":
        from axolotl.utils.optimizers.adamc import AdamC as cls
    elif name == "sinkgd" and mesh is not None:
        from axolotl.utils.optimizers.sinkgd import DistSinkGDOptimizerFactory as cls
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
        str(folder), use_cpu=use_cpu, learning_rate=lr, weight_decay=decay, report_to=[]
    )
    trainer = AxolotlLikeTrainer(model=model, args=arguments, optimizer_cls_and_kwargs=(cls, kwargs))
    return trainer.create_optimizer()
