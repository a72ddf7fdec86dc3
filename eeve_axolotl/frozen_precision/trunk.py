"""Putting the frozen linear modules of a model into FP8, and taking them out again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.frozen_precision.device import check_device, check_products
from eeve_axolotl.frozen_precision.float8 import fits
from eeve_axolotl.frozen_precision.linear import hold, release
from eeve_axolotl.logs import logger

LOG = logger("frozen_precision")

# What DDP reads from a model: names of parameters that it neither checks nor broadcasts.
_NOT_FOR_DDP = "_ddp_params_and_buffers_to_ignore"

# Modules that choose experts: few parameters, and 8 bits would choose others.
_ROUTERS = ("gate", "router")


def hold_in_fp8(model: nn.Module) -> Float8Trunk:
    """Makes the frozen linear modules of `model` compute in FP8, in place; the way back is `remove`.

    Call it once rows are frozen, before the model is wrapped. The embeddings, the head, norms, routers, and what else
    is no plain nn.Linear stay as they are, and so does a matrix that trains.

    Raises EEVEError for a device that cannot or computes something else, and for a model without such modules.
    """
    modules = _to_be_held(model)
    if not modules:
        raise EEVEError(
            f"{type(model).__name__} has no frozen linear module in bf16 or fp32 with sides of a multiple of 16, so "
            "`eeve.frozen_precision: fp8` would hold nothing; remove it"
        )
    device = next(iter(modules.values())).weight.device
    check_device(device)
    check_products(device)
    return Float8Trunk(model, modules)


class Float8Trunk:
    """Frozen linear modules of a model in FP8, their own weights in the machine's memory."""

    def __init__(self, model: nn.Module, modules: dict[str, nn.Linear]):
        self._model = model
        self.is_emulated = next(iter(modules.values())).weight.device.type != "cuda"
        self.modules = {name: hold(each) for name, each in modules.items()}
        if not self.is_emulated:
            torch.cuda.empty_cache()  # what the layers' own weights have left
        self.parameters = sum(each.weight.numel() for each in self.modules.values())
        self._ignored_before = list(getattr(model, _NOT_FOR_DDP, []))
        # It would refuse a model whose parameters lie on two kinds of devices.
        setattr(model, _NOT_FOR_DDP, [*self._ignored_before, *(f"{name}.weight" for name in self.modules)])
        self._tell()

    @property
    def held_bytes(self) -> int:
        """What the matrices take in FP8, on the device."""
        return sum(each.matrix.nbytes for each in self.modules.values())

    @property
    def own_bytes(self) -> int:
        """What the modules' own weights take, in the machine's memory."""
        return sum(each.weight.nbytes for each in self.modules.values())

    def record(self) -> dict[str, Any]:
        """What a stage's record keeps."""
        return {
            "precision": "fp8",
            "matrices": len(self.modules),
            "parameters": self.parameters,
            "emulated": self.is_emulated,
        }

    def remove(self) -> None:
        """Takes it off: the modules are what they were, their own weights on their device."""
        while self.modules:
            release(self.modules.popitem()[1])
        if self._ignored_before:
            setattr(self._model, _NOT_FOR_DDP, self._ignored_before)
        elif hasattr(self._model, _NOT_FOR_DDP):
            delattr(self._model, _NOT_FOR_DDP)

    def _tell(self) -> None:
        LOG.info(
            "frozen_precision: fp8 for %s matrices of the frozen layers, %s parameters: %.2f GB in place of %.2f GB, which "
            "lie in the machine's memory and are what is saved",
            f"{len(self.modules):,}",
            f"{self.parameters:,}",
            self.held_bytes / 1e9,
            self.own_bytes / 1e9,
        )
        if self.is_emulated:
            LOG.warning(
                "frozen_precision: FP8 is emulated on this CPU, which saves neither time nor memory: for tests"
            )


def _to_be_held(model: nn.Module) -> dict[str, nn.Linear]:
    """The frozen linear modules of the layers, by name."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    users = Counter(id(each) for module in model.modules() for each in module._parameters.values())
    # A mixer of a state-space layer hands its projections' weights to a kernel, past their forward.
    mixers = [each for each in model.modules() if type(each).__name__.endswith("Mixer")]
    left_out = {id(child) for each in mixers for child in each.modules()} | {id(head)}
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and "forward" not in module.__dict__  # something else has changed what it does
        and id(module) not in left_out
        and name.rpartition(".")[2] not in _ROUTERS
        and users[id(module.weight)] == 1
        and not module.weight.requires_grad
        and not module.weight.is_meta
        and module.weight.dtype in (torch.bfloat16, torch.float32)
        and fits(*module.weight.shape)
    }
