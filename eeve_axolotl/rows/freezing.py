"""Putting a mask into force on a model, and taking it off again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.rows.checksums import Fingerprint, fingerprint
from eeve_axolotl.rows.masks import MatrixMask, RowMask
from eeve_axolotl.rows.modules import TRAINED, RowsModule, install, uninstall
from eeve_axolotl.rows.sharded import shape_of
from eeve_axolotl.stages import Layers, Rows

_IN_FORCE = "_eeve_frozen_rows"  # the attribute of a model that says which mask is in force


def freeze(model: nn.Module, mask: RowMask) -> FrozenRows:
    """Make exactly what `mask` names trainable in `model`, in place.

    Call it after the embeddings have their final size and adapters are on, and before the optimiser is built
    and the model is wrapped or sharded (DDP, FSDP2, DeepSpeed). A mask still in force is taken off first, so
    a scheduler can go from stage to stage; every stage needs an optimiser of its own.

    Raises EEVEError when the stage trains adapters and the model has none.
    """
    previous = getattr(model, _IN_FORCE, None)
    if previous is not None:
        previous.remove()
    _freeze_everything(model)
    if mask.stage.internal_layers is not Layers.FROZEN:
        _train_internal_layers(model, mask)
    table, head = model.get_submodule(mask.inputs.module), model.get_submodule(mask.outputs.module)
    for module, matrix in ((table, mask.inputs), (head, mask.outputs)):
        if matrix.rows is Rows.ALL:
            for name in TRAINED:
                parameter = module._parameters.get(name)
                if parameter is not None:
                    parameter.requires_grad_(True)
        elif matrix.rows is Rows.NEW:
            install(module, matrix.start, matrix.stop, table if mask.tied and module is head else None)
    hooks: list[RemovableHandle] = []
    if mask.tied and mask.inputs.rows is Rows.NEW:
        hooks += _gradients_while_forward_runs(model, mask)
    if not mask.backward_through_layers:
        # transformers makes the embeddings' output require a gradient for adapters and for reentrant
        # checkpointing; here nothing below the head trains, and that would build the whole graph.
        disable = getattr(model, "disable_input_require_grads", None)
        if disable is not None:
            disable()
        hooks.append(head.register_forward_pre_hook(_cut_graph))
    frozen = FrozenRows(model, mask, hooks)
    setattr(model, _IN_FORCE, frozen)
    return frozen


class FrozenRows:
    """A mask in force on a model: what trains, proof of what does not, and the way back."""

    def __init__(self, model: nn.Module, mask: RowMask, hooks: Iterable[RemovableHandle] = ()):
        self.model, self.mask = model, mask
        self._hooks = list(hooks)
        self._trained = frozenset(self.trained_parameters())

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that trains, by name: what an optimiser may hold."""
        return {name: each for name, each in self.model.named_parameters() if each.requires_grad}

    def protect(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Take everything out of an optimiser, in place, that this stage does not train.

        Frozen rows are no part of any Parameter that trains, so an optimiser built from the model's
        parameters after `freeze` needs no protection. This is for one that was built before, or is carried
        over from an earlier stage: its stale momentum would go on moving what is now frozen. It also makes
        the optimiser refuse a checkpoint that another stage left.
        """
        trained = {id(each) for each in self.model.parameters() if each.requires_grad}
        for group in optimizer.param_groups:
            group["params"] = [each for each in group["params"] if id(each) in trained]
        kept = [group for group in optimizer.param_groups if group["params"]]
        if not kept:
            raise EEVEError(
                f"The optimiser holds nothing that stage {self.mask.stage.name} trains: build it after the rows are "
                "frozen, one optimiser a stage."
            )
        optimizer.param_groups[:] = kept
        for parameter in [each for each in optimizer.state if id(each) not in trained]:
            del optimizer.state[parameter]
        _keep_embeddings_in_32_bit(optimizer, self.model.get_submodule(self.mask.inputs.module))
        optimizer.register_load_state_dict_post_hook(self._refuse_other_state)
        return optimizer

    def fingerprint(self) -> Fingerprint:
        """Checksums of everything that must not change in this stage (see `checksums.fingerprint`).

        In a sharded run every rank must call it; all get the same answer.
        """
        return fingerprint(self.model, self.mask, self._trained)

    def check_trained(self) -> None:
        """Raise EEVEError, naming the difference, unless what requires a gradient is what this mask trains.

        Whatever comes later may have changed it: another plugin, a callback, a patch.
        """
        now = self.trained_parameters().keys()
        if now == self._trained:
            return
        found = []
        for names, what in (
            (now - self._trained, "train though it freezes"),
            (self._trained - now, "do not train"),
        ):
            if names:
                shown = ", ".join(sorted(names)[:3]) + (
                    f" and {len(names) - 3} more" if len(names) > 3 else ""
                )
                found.append(f"{shown} {what} them" if names <= now else f"{shown} {what}")
        raise EEVEError(
            f"what trains is not what stage {self.mask.stage.name} says: {'; '.join(found)}. Another plugin, callback "
            "or setting (`unfrozen_parameters`, Spectrum) changed it after the stage had frozen the model; remove that"
        )

    def check_finite(self) -> None:
        """Raise EEVEError for a trained parameter, as far as this process holds it, that is not finite."""
        for name, each in self.trained_parameters().items():
            held = each.to_local() if hasattr(each, "to_local") else each
            if not torch.isfinite(held).all():
                raise EEVEError(
                    f"{name} is not finite any more; lower learning_rate, and go on from the last good checkpoint"
                )

    def merge(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put the trained rows where they belong in a state dict, in place, and drop their own keys.

        Only needed where a state dict was not made by `model.state_dict()`: DeepSpeed ZeRO-3 gathers one
        parameter by parameter. Does nothing to one that is merged already.
        """
        for name, module in self.model.named_modules():
            if not isinstance(module, RowsModule):
                continue
            start, stop = module._rows_range
            for whole_name, rows_name in TRAINED.items():
                rows = state_dict.pop(f"{name}.{rows_name}", None)
                whole = state_dict.get(f"{name}.{whole_name}")
                if rows is not None and whole is not None:
                    whole[start:stop].copy_(rows)
        return state_dict

    def remove(self) -> None:
        """Take the mask off.

        The model has its own classes and parameters again, the trained rows in their place, and nothing
        requires a gradient. Sharded, it gathers: every rank must call it.
        """
        while self._hooks:
            self._hooks.pop().remove()
        for module in self.model.modules():
            uninstall(module)
        _freeze_everything(self.model)
        if getattr(self.model, _IN_FORCE, None) is self:
            delattr(self.model, _IN_FORCE)

    def record(
        self,
        before: Fingerprint | None = None,
        after: Fingerprint | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> dict[str, Any]:
        """What the stage's record keeps: rows trained and frozen, optimiser bytes, fingerprints."""
        parameters = {id(each): each for each in self.model.parameters()}.values()
        record = {
            "stage": self.mask.stage.name,
            "tied": self.mask.tied,
            **{matrix.role: _matrix_record(matrix) for matrix in (self.mask.inputs, self.mask.outputs)},
            "parameters_trained": sum(_numel(each) for each in parameters if each.requires_grad),
        }
        if optimizer is not None:
            record["optimizer_state_bytes"] = optimizer_state_bytes(optimizer)
        if before is not None:
            record["fingerprint_before"] = before.summary()
        if after is not None:
            record["fingerprint_after"] = after.summary()
        if before is not None and after is not None:
            record["moved"] = before.moved(after)
            record["trained_and_unmoved"] = before.unmoved(after)
        return record

    def _refuse_other_state(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter, state in optimizer.state.items():
            for key in ("exp_avg", "exp_avg_sq", "momentum_buffer", "state1", "state2", "z"):
                value = state.get(key) if isinstance(state, dict) else None
                if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                    raise EEVEError(
                        f"The optimiser state in the checkpoint is another stage's: it has {key} of shape "
                        f"{tuple(value.shape)} for {tuple(parameter.shape)} trained; start stage "
                        f"{self.mask.stage.name} without `resume_from_checkpoint`, from the earlier stage's weights."
                    )


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimiser's state that this process holds (of a sharded state, this rank's shards)."""
    while not isinstance(optimizer, torch.optim.Optimizer) or not optimizer.state:
        inner = getattr(optimizer, "optimizer", None)  # Accelerate's and DeepSpeed's wrappers
        if inner is None:
            break
        optimizer = inner

    def size(value: object) -> int:
        if isinstance(value, torch.Tensor):
            if hasattr(value, "__tensor_flatten__"):  # a shard (DTensor), or torchao's state of few bits
                return sum(size(getattr(value, name)) for name in value.__tensor_flatten__()[0])
            return value.numel() * value.element_size()
        if isinstance(value, dict):
            return sum(size(each) for each in value.values())
        if isinstance(value, (list, tuple)):
            return sum(size(each) for each in value)
        return 0

    return sum(size(state) for state in optimizer.state.values())


def _gradients_while_forward_runs(model: nn.Module, mask: RowMask) -> list[RemovableHandle]:
    """Have a tied pair show, while the model's forward runs, the tensor whose gradient reaches the trained rows.

    Kernels read it past the head's forward. At any other time the pair shows its one Parameter as `weight`, so that
    it can be tied.
    """

    def tied(value: bool) -> Callable[..., None]:
        def hook(model: nn.Module, *_: object) -> None:
            for name in (mask.inputs.module, mask.outputs.module):
                module = model.get_submodule(name)
                assert isinstance(module, RowsModule)
                module._rows_tied = value

        return hook

    return [
        model.register_forward_pre_hook(tied(False)),
        model.register_forward_hook(tied(True), always_call=True),
    ]


def _cut_graph(head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    hidden = args[0]
    if not hidden.requires_grad:
        return None
    warnings.warn(
        "Only the output embeddings train in this stage, but something asked for gradients of the input embeddings' "
        "output (gradient checkpointing, or `enable_input_require_grads`): the gradient is cut at the head, and the "
        "memory for a graph through the internal layers is wasted. Set `gradient_checkpointing: false`.",
        stacklevel=2,
    )
    return (hidden.detach(), *args[1:])


def _freeze_everything(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None  # an optimiser would act on one left over, be it zero


def _train_internal_layers(model: nn.Module, mask: RowMask) -> None:
    embeddings = {
        id(each)
        for matrix in mask.matrices
        for each in model.get_submodule(matrix.module).parameters(recurse=False)
    }
    found = False
    for name, parameter in model.named_parameters():
        if id(parameter) in embeddings or ".original_module." in name:
            continue
        if mask.stage.internal_layers is Layers.FULL or "lora_" in name:
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
                found = True
    if not found:
        raise EEVEError(
            f"Stage {mask.stage.name} trains the internal layers with adapters, but the model has none: set "
            "`adapter: qlora` with `load_in_4bit: true` and `lora_target_linear: true`."
        )


def _keep_embeddings_in_32_bit(optimizer: torch.optim.Optimizer, table: nn.Module) -> None:
    """Say of the table's trained rows what transformers says of its `weight`.

    It keeps the state of nn.Embedding weights in 32 bits under bitsandbytes' 8-bit Adam, as bitsandbytes advises.
    """
    manager = getattr(optimizer, "mng", None)
    if manager is None or not isinstance(table, RowsModule):
        return
    if (table, "weight", {"optim_bits": 32}) in manager.module_weight_config_triple:
        manager.register_module_override(table, TRAINED["weight"], {"optim_bits": 32})


def _matrix_record(matrix: MatrixMask) -> dict[str, Any]:
    return {
        "rows_trained": matrix.trained,
        "rows_frozen": matrix.frozen,
        "first_trained_row": matrix.start if matrix.trained else None,
        "rows": matrix.total,
    }


def _numel(parameter: nn.Parameter) -> int:
    return int(torch.Size(shape_of(parameter)).numel())
