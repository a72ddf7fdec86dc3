"""Cross-entropy of a linear head that never holds the logits: some tokens at a time, in plain PyTorch.

The usual way keeps, for every token, a value for each row of the vocabulary: the logits, their logarithmic
softmax and the gradient of either. Here a chunk of tokens goes from hidden states to its part of the loss and of
the gradients before the next one begins, so what is held at once is a chunk's logits, however long the batch.

The gradients are made in the forward pass, where a chunk's logits are at hand, and only those that are asked for:
of the hidden states where something below the head trains, and of the rows that train. The backward pass
multiplies them by what comes from above. It is the arithmetic of the usual way, in its dtypes: products in the
hidden states' dtype (autocast's, if it is on), the softmax in 32 bits.

Source: the gradient in the forward pass is Liger-Kernel's (arXiv 2410.10989, 3.2); leaving out the rows that do
not train is ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

Transform = Callable[[torch.Tensor], torch.Tensor]

# Logits of a chunk: on a GPU as many as keep its products busy, on a CPU what its caches can bear.
_ELEMENTS = {"cpu": 1 << 23}
_ELEMENTS_OF_A_GPU = 1 << 27
_LEAST_TOKENS = 64  # below it a product reads the whole matrix for too little work
_WORTH_LEAVING_OUT = 1 / 16  # of the tokens have no target: then they are taken out first


@dataclass(frozen=True)
class TrainedRows:
    """The part of a head that trains: `weight` (count, hidden) is its rows from `start` on, `bias` (count,) theirs.

    They must hold the same values as the whole matrix does there; the gradient goes to them alone.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    start: int = 0


def tokens_per_chunk(tokens: int, rows: int, device: str = "cuda") -> int:
    """How many of `tokens` have their logits (of `rows` rows) made at once: a power of two, or all of them."""
    fit = max(_LEAST_TOKENS, _ELEMENTS.get(device, _ELEMENTS_OF_A_GPU) // rows)
    return max(1, min(tokens, 1 << (fit.bit_length() - 1)))


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    trained: TrainedRows | None = None,
    divisor: torch.Tensor | float | None = None,
    ignore_index: int = -100,
    transform: Transform | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """The sum over tokens of cross_entropy(transform(hidden @ weight.T + bias), target), divided.

    Args:
        hidden: (tokens, width), what the head reads.
        weight: (rows, width), the whole matrix; no gradient goes to it.
        target: int64 (tokens,), a row for each token, or `ignore_index`.
        bias: (rows,), no gradient goes to it either.
        trained: what trains of the two; None where nothing of the head does.
        divisor: what the sum is divided by; None: the number of targets, so that the loss is their mean.
        transform: applied to the logits, element by element (soft-capping, scaling); differentiable.
        chunk: tokens at a time; None: by `tokens_per_chunk`.

    Returns a scalar in 32 bits (64 where the hidden states have 64), whose backward pass can run once.
    """
    if hidden.dim() != 2 or target.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden states {tuple(hidden.shape)} and targets {tuple(target.shape)} do not fit: give "
            "(tokens, width) and (tokens,)"
        )
    job = _Job(
        start=trained.start if trained else 0,
        stop=trained.start + trained.weight.shape[0] if trained else 0,
        ignore_index=ignore_index,
        transform=transform,
        chunk=chunk or tokens_per_chunk(hidden.shape[0], weight.shape[0], hidden.device.type),
        needs_gradients=torch.is_grad_enabled(),
    )
    rows, bias_rows = (trained.weight, trained.bias) if trained else (None, None)
    return _LinearCrossEntropy.apply(
        hidden,
        rows,
        bias_rows,
        weight.detach(),
        None if bias is None else bias.detach(),
        target,
        divisor,
        job,
    )


@dataclass(frozen=True)
class _Job:
    """What does not take part in differentiation."""

    start: int  # of the rows that train
    stop: int
    ignore_index: int
    transform: Transform | None
    chunk: int
    needs_gradients: bool


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, rows, bias_rows, weight, bias, target, divisor, job):
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        needs = [job.needs_gradients and each for each in ctx.needs_input_grad[:3]]
        with torch.autocast(device, enabled=False):
            bias = None if bias is None else bias.to(dtype)
            chunks = _Chunks(hidden, weight.to(dtype), bias, target, job, needs)
            for first in range(0, chunks.count, job.chunk):
                chunks.add(first, min(first + job.chunk, chunks.count))
        ctx.divisor = chunks.valid if divisor is None else divisor
        ctx.gradients = chunks.gradients()
        ctx.dtypes = [None if each is None else each.dtype for each in (hidden, rows, bias_rows)]
        return chunks.loss / ctx.divisor

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        if ctx.gradients is None:
            raise RuntimeError(
                "The gradients of the head's loss were made in its forward pass and are used up: run the forward "
                "pass again before a second backward pass."
            )
        gradients, ctx.gradients = ctx.gradients, None  # let go as they are handed on
        scale = grad / ctx.divisor
        return *(
            None if each is None else each.mul_(scale).to(dtype)
            for each, dtype in zip(gradients, ctx.dtypes, strict=True)
        ), *([None] * 5)


class _Chunks:
    """The running sums over chunks: of the loss, and of the gradients before they are divided."""

    def __init__(self, hidden, weight, bias, target, job: _Job, needs: list[bool]):
        self.weight, self.bias, self.job = weight, bias, job
        is_valid = target != job.ignore_index
        self.valid = is_valid.sum()
        self.kept = None  # the tokens that have a target, where leaving out the others is worth a copy
        tokens = hidden.shape[0]
        if int(self.valid) <= (1 - _WORTH_LEAVING_OUT) * tokens:
            self.kept = is_valid.nonzero().squeeze(1)
            hidden, target, is_valid = hidden[self.kept], target[self.kept], is_valid[self.kept]
        self.hidden, self.target, self.is_valid = hidden, target.masked_fill(~is_valid, 0), is_valid
        self.count = hidden.shape[0]
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.loss = torch.zeros((), dtype=wide, device=hidden.device)
        new = functools.partial(torch.zeros, device=hidden.device)
        trained = job.stop - job.start
        self.of_hidden = new(tokens, hidden.shape[1], dtype=hidden.dtype) if needs[0] else None
        self.of_rows = new(trained, hidden.shape[1], dtype=wide) if needs[1] else None
        self.of_bias = new(trained, dtype=wide) if needs[2] else None
        # Made once: fresh memory for each chunk costs a CPU as much as a pass over it.
        size = (min(job.chunk, self.count), weight.shape[0])
        self._logits = torch.empty(size, dtype=weight.dtype, device=hidden.device)
        self._log_probabilities = torch.empty(size, dtype=wide, device=hidden.device)

    def gradients(self) -> tuple:
        """Of the hidden states, the trained rows and their bias; None for what needs none."""
        return self.of_hidden, self.of_rows, self.of_bias

    def add(self, first: int, last: int) -> None:
        """Takes in the tokens [first, last)."""
        hidden = self.hidden[first:last].to(self.weight.dtype)
        target, is_valid = self.target[first:last], self.is_valid[first:last]
        logits = self._logits[: last - first]
        if self.bias is None:
            torch.mm(hidden, self.weight.t(), out=logits)
        else:
            torch.addmm(self.bias, hidden, self.weight.t(), out=logits)
        capped = logits if self.job.transform is None else self.job.transform(logits)
        wide = self._log_probabilities
        log_probabilities = torch.log_softmax(capped.to(wide.dtype), 1, out=wide[: last - first])
        picked = log_probabilities.gather(1, target[:, None]).squeeze(1)
        self.loss -= picked.masked_fill(~is_valid, 0).sum()
        if self.of_hidden is None and self.of_rows is None and self.of_bias is None:
            return
        # The hidden states' gradient takes every row's logit, the trained rows' only their own.
        low, high = (
            (0, self.weight.shape[0]) if self.of_hidden is not None else (self.job.start, self.job.stop)
        )
        gradient = _of_logits(
            logits[:, low:high], log_probabilities[:, low:high], target - low, self.job.transform
        )
        if self.of_hidden is not None:
            of_hidden = (gradient @ self.weight).masked_fill_(~is_valid[:, None], 0).to(self.of_hidden.dtype)
            self.of_hidden[slice(first, last) if self.kept is None else self.kept[first:last]] = of_hidden
        trained = gradient[:, self.job.start - low : self.job.stop - low]
        if self.of_rows is not None:
            _add_product(self.of_rows, trained.t(), hidden.masked_fill(~is_valid[:, None], 0))
        if self.of_bias is not None:
            self.of_bias += is_valid.to(trained.dtype) @ trained


def _of_logits(logits, log_probabilities, target, transform: Transform | None) -> torch.Tensor:
    """The gradient of a chunk's summed loss by its logits, or by some columns of them: softmax minus one at the
    target, which is counted from the first of these columns. Overwrites `log_probabilities`."""
    columns = logits.shape[1]
    gradient = log_probabilities.exp_()
    inside = (target >= 0) & (target < columns)
    ones = inside.to(gradient.dtype)
    gradient.scatter_add_(1, target.clamp(0, columns - 1)[:, None], -ones[:, None])
    if transform is None:
        return gradient.to(logits.dtype)
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        capped = transform(logits)
    (gradient,) = torch.autograd.grad(capped, logits, gradient.to(capped.dtype))
    return gradient


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add left @ right to `total`, whose sum is kept in 32 bits though the factors have 16."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    elif _adds_in_32_bits(total.device.type, right.dtype):
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


@functools.cache
def _adds_in_32_bits(device: str, dtype: torch.dtype) -> bool:
    """Whether PyTorch adds a product of 16-bit factors to a sum in 32 bits in one go here: tried once."""
    if device == "cpu":
        return False
    factor = torch.full((16, 16), 0.5, dtype=dtype, device=device)
    total = torch.ones(16, 16, dtype=torch.float32, device=device)
    try:
        torch.addmm(total, factor, factor, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 5).all())
