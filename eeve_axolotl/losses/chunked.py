"""Making a transformers causal language model use the loss that never holds its logits.

While a forward pass with labels runs, a stand-in has the head's place in the model. What it gives is a
`DeferredLogits`; the model does to it what it does to its logits, and hands it to `self.loss_function`. There the
head itself is called, once and as the module it is, with what it is to read and what the loss needs; so whatever
surrounds a module (DDP, FSDP2, DeepSpeed, hooks) finds an ordinary one, whose input and output are tensors. No
architecture's forward is copied, and a model that does something else with its logits gets them, as before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.loss import loss_utils

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.losses.deferred import DeferredLogits
from eeve_axolotl.losses.linear_cross_entropy import TrainedRows, Transform, linear_cross_entropy
from eeve_axolotl.rows.modules import RowsHead, RowsModule
from eeve_axolotl.rows.sharded import shape_of

LOG = logger("head_loss")

_TOKENS_COMPARED = 8  # of the first batch, with the model's own loss


def use_chunked_loss(model: nn.Module) -> ChunkedLoss | None:
    """Makes `model` use the chunked loss in its forward passes with labels; the way back is `remove`.

    Call it once rows are frozen and adapters are on, before the model is wrapped or sharded. Returns None, with
    the reason in the log, where it does not hold: then the model is left as it is.
    """
    try:
        return ChunkedLoss(model)
    except _NotHere as reason:
        LOG.info("head_loss: plain, for %s", reason)
        return None


class _NotHere(Exception):
    """Why a model keeps its own loss: completes the sentence "plain, for ..."."""


class ChunkedLoss:
    """The chunked loss in force on a model, in training; in evaluation too while `in_evaluation` is set, for
    whoever wants the loss alone. Without labels, or compiled as a whole, the model makes its logits."""

    def __init__(self, model: nn.Module):
        owner, outputs = _owner(model)
        self._head = _linear_head(outputs)
        self._loss_function = _LossFunction(self, _plain_loss_function(owner))
        self._parent, self._name = _place(model, outputs)
        self._model, self._owner, self._outputs = model, owner, outputs
        self.in_evaluation = False
        self.rows = shape_of(_weight(self._head))[0]
        self._parameters = list(inspect.signature(model.forward).parameters)
        self._told: set[str] = set()
        self._stand_in = _StandIn(self, outputs)
        self._head.forward = _HeadForward(self._head)
        owner.loss_function = self._loss_function
        self._hooks = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            # Before whoever else looks at the model when its forward pass has ended.
            model.register_forward_hook(self._end, always_call=True, prepend=True),
        ]

    def remove(self) -> None:
        """Takes it off: the model computes its loss as before."""
        while self._hooks:
            self._hooks.pop().remove()
        self._end()
        self._owner.loss_function = self._loss_function.plain
        self._head.__dict__.pop("forward", None)

    def defer(self, hidden: torch.Tensor) -> DeferredLogits:
        """What stands for the head's logits."""
        return DeferredLogits(hidden, self.rows, self._outputs, self._tell)

    def loss(self, logits: DeferredLogits, target: torch.Tensor, divisor, ignore_index: int) -> torch.Tensor:
        """The loss of logits that are not made, by the head: summed over the targets, and divided."""
        hidden = logits.hidden.reshape(-1, logits.hidden.shape[-1])
        transform = logits.transform if logits.steps else None
        return self._head(hidden, loss=_Wanted(target.reshape(-1), divisor, ignore_index, transform))

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        labels = dict(zip(self._parameters, args, strict=False)).get("labels", kwargs.get("labels"))
        wanted = self.in_evaluation or (model.training and torch.is_grad_enabled())
        if labels is not None and wanted and not torch.compiler.is_compiling():
            # Beside the head, which stays a child: who walks over the model's modules meanwhile finds it.
            self._parent.__dict__[self._name] = self._stand_in

    def _end(self, *_) -> None:
        self._parent.__dict__.pop(self._name, None)

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            name = type(self._owner).__name__
            LOG.info("head_loss: %s makes its logits after all, for `%s`", name, what)


def _owner(model: nn.Module) -> tuple[PreTrainedModel, nn.Module]:
    """The causal language model, beneath adapters, and what it calls its head."""
    for each in model.modules():
        if isinstance(each, PreTrainedModel) and each.get_output_embeddings() is not None:
            return each, each.get_output_embeddings()
    raise _NotHere(f"{type(model).__name__} has no head that `get_output_embeddings()` gives")


def _place(model: nn.Module, outputs: nn.Module) -> tuple[nn.Module, str]:
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is outputs
    ]
    if len(places) != 1:
        raise _NotHere(f"the head has {len(places)} places in {type(model).__name__}")
    return places[0]


def _linear_head(outputs: nn.Module) -> nn.Module:
    """The linear module that `outputs` is, or, where PEFT trains a copy of it, holds."""
    copies, active = (getattr(outputs, name, None) for name in ("modules_to_save", "active_adapters"))
    head = copies[active[0]] if copies is not None and active else outputs
    kind = head.base_class if isinstance(head, RowsModule) else type(head)
    if kind is not nn.Linear:
        raise _NotHere(f"the head is a {kind.__module__}.{kind.__name__}, not a torch.nn.Linear")
    if "forward" in head.__dict__ or head._forward_hooks or outputs._forward_hooks:
        raise _NotHere("something else has changed what the head does")
    if not _weight(head).is_floating_point():
        raise _NotHere(f"the head is quantised ({_weight(head).dtype})")
    return head


def _weight(head: nn.Module) -> nn.Parameter:
    """The registered Parameter, whatever the attribute shows."""
    weight = head._parameters["weight"]
    assert weight is not None
    return weight


def _plain_loss_function(owner: PreTrainedModel) -> Callable:
    """The model's own loss, if it is transformers' next-token cross-entropy as it came."""
    function = owner.loss_function
    parts = (function, loss_utils.fixed_cross_entropy, F.cross_entropy)
    for part, name in zip(parts, ("ForCausalLMLoss", "fixed_cross_entropy", "cross_entropy"), strict=True):
        module = F.__name__ if part is F.cross_entropy else loss_utils.__name__
        if (getattr(part, "__module__", None), getattr(part, "__name__", None)) != (module, name):
            raise _NotHere(f"{type(owner).__name__} has another loss, {part}")
    return function


class _StandIn:
    """Has the head's place while the model's forward pass runs; shows the head's weights to who asks."""

    def __init__(self, chunked: ChunkedLoss, outputs: nn.Module):
        self._chunked, self._outputs = chunked, outputs

    def __call__(self, hidden: torch.Tensor) -> DeferredLogits:
        return self._chunked.defer(hidden)

    def __getattr__(self, name: str):
        if name.startswith("__") or "_outputs" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self._outputs, name)


class _LossFunction:
    """Stands for the model's `loss_function`, which has the signature of transformers' ForCausalLMLoss."""

    def __init__(self, chunked: ChunkedLoss, plain: Callable):
        self.chunked, self.plain = chunked, plain
        self._signature = inspect.signature(plain)

    def __call__(self, *args, **kwargs) -> torch.Tensor:
        given = self._signature.bind(*args, **kwargs)
        given.apply_defaults()
        wanted = given.arguments
        logits = wanted["logits"]
        if not isinstance(logits, DeferredLogits):
            return self.plain(*args, **kwargs)
        target = _targets(wanted["labels"], wanted["shift_labels"], wanted["ignore_index"])
        fits = wanted["vocab_size"] == logits.shape[-1] and target.numel() == logits.shape[:-1].numel()
        if logits.is_made or not fits:
            wanted["logits"] = logits.made("a loss over another shape")
            return self.plain(*given.args, **given.kwargs)
        divisor, target = wanted["num_items_in_batch"], target.to(logits.device)
        if isinstance(divisor, torch.Tensor):
            divisor = divisor.to(logits.device)
        return self.chunked.loss(logits, target, divisor, wanted["ignore_index"])


def _targets(labels, shift_labels, ignore_index: int) -> torch.Tensor:
    """What each position predicts: its own shifted label, or the label one further on."""
    if shift_labels is not None:
        return shift_labels
    return F.pad(labels, (0, 1), value=ignore_index)[..., 1:]


@dataclass(frozen=True)
class _Wanted:
    """What the head is called with, beside hidden states, to give their loss in place of logits."""

    target: torch.Tensor  # (tokens,)
    divisor: torch.Tensor | float | None
    ignore_index: int
    transform: Transform | None


class _HeadForward:
    """The head's forward: logits as before, or the loss of what it reads."""

    def __init__(self, head: nn.Module):
        self.head = head
        self.is_compared = False

    def __call__(self, hidden: torch.Tensor, loss: _Wanted | None = None) -> torch.Tensor:
        # By its class, which may have changed since: FSDP2 gives a module one of its own, and so does `rows`.
        if loss is None:
            return type(self.head).forward(self.head, hidden)
        if not self.is_compared:
            self.is_compared = True
            self._compare(hidden.detach(), loss)
        return self._loss(hidden, loss.target, loss, loss.divisor)

    def _loss(self, hidden, target, wanted: _Wanted, divisor) -> torch.Tensor:
        head = self.head
        weight: torch.Tensor | None
        if isinstance(head, RowsHead):
            weight, bias, trained = head.whole("weight"), head.whole("bias"), TrainedRows(*head.trained())
        else:
            assert isinstance(head, nn.Linear)
            weight, bias, trained = head.weight, head.bias, TrainedRows(head.weight, head.bias)
        assert weight is not None
        return linear_cross_entropy(
            hidden,
            weight,
            target,
            bias,
            trained=trained,
            divisor=divisor,
            ignore_index=wanted.ignore_index,
            transform=wanted.transform,
        )

    @torch.no_grad()
    def _compare(self, hidden: torch.Tensor, wanted: _Wanted) -> None:
        """Some tokens of the first batch, once: both losses must agree, on this machine, with these weights."""
        some = (wanted.target != wanted.ignore_index).nonzero().squeeze(1)[:_TOKENS_COMPARED]
        hidden, target = hidden[some], wanted.target[some]
        logits = type(self.head).forward(self.head, hidden)
        logits = logits if wanted.transform is None else wanted.transform(logits)
        plain = float(F.cross_entropy(logits.float(), target, reduction="sum"))
        ours = float(self._loss(hidden, target, wanted, divisor=1))
        close = 1e-4 if logits.dtype in (torch.float32, torch.float64) else 1e-2
        if abs(ours - plain) > close * (1 + abs(plain)):
            raise EEVEError(
                f"the chunked loss of the head gives {ours:.6g} where the model's own gives {plain:.6g}, for "
                f"{len(some)} tokens of the first batch; set `eeve: {{head_loss: plain}}`"
            )
