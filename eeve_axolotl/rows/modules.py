"""An embedding table and a head of which only the rows [start, stop) train.

The rows that train are a Parameter of their own, `trained_rows`. The whole matrix stays registered as
`weight` and never requires a gradient, so no optimiser, no weight decay, no stale momentum, no gradient
reduction and no sharding ever has a reason to touch it: frozen rows are safe by construction, and
gradients, optimiser state and traffic exist for the trained rows alone.

The two must read as one matrix. In one process and under DDP `trained_rows` shares the storage of
`weight[start:stop]`, so they are one. Sharding (FSDP2, ZeRO) gives each a storage of its own; the rows are
then copied into the gathered `weight` whenever it is about to be read.

`state_dict()` shows `weight` as it should be and no `trained_rows`, so checkpoints are ordinary ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from eeve_axolotl.rows.sharded import (
    distribute_like,
    full,
    gathered,
    is_dtensor,
    is_partitioned,
    write_shard,
)

# The whole matrix and the whole bias -> the Parameter that has their rows that train.
TRAINED = {"weight": "trained_rows", "bias": "trained_bias"}


def install(module: nn.Module, start: int, stop: int, rows_from: nn.Module | None = None) -> None:
    """Make [start, stop) the only rows of `module` (an Embedding or Linear) that train.

    `rows_from` is the other module of a tied pair, already installed, whose rows this one shares.
    """
    mixin = RowsEmbedding if isinstance(module, nn.Embedding) else RowsHead
    base = type(module)
    # The mixin sits right before nn.Embedding / nn.Linear in the order of resolution, so that a subclass's
    # own forward (Gemma scales its embeddings) still runs and reaches ours through super().
    bases = (mixin,) if base in (nn.Embedding, nn.Linear) else (base, mixin)
    module.__class__ = type(f"Rows{base.__name__}", bases, {"__module__": __name__})
    assert isinstance(module, RowsModule)
    module._rows_base_class = base
    module._rows_range = (start, stop)
    module._rows_tied = False
    for name, rows_name in TRAINED.items():
        whole = module._parameters.get(name)
        if whole is None:
            continue
        whole.requires_grad_(False)
        if rows_from is not None and name == "weight":
            assert isinstance(rows_from, RowsModule)
            module._parameters[rows_name] = rows_from._parameters[rows_name]
            module._rows_tied = rows_from._rows_tied = True
        else:
            with gathered(whole):
                rows = whole.data[start:stop]
                # A partitioned matrix is let go again, so its rows cannot share its storage.
                rows = rows.clone() if is_partitioned(whole) else rows
                module.register_parameter(rows_name, nn.Parameter(rows))


def uninstall(module: nn.Module) -> None:
    """Undo `install`: the trained rows are part of `weight`, which stays frozen; nothing else remains."""
    if not isinstance(module, RowsModule):
        return
    module.write_back()
    base: type[nn.Module] = module._rows_base_class
    for rows_name in TRAINED.values():
        module._parameters.pop(rows_name, None)
    for name in ("_rows_base_class", "_rows_range", "_rows_tied"):
        delattr(module, name)
    module.__class__ = base  # type: ignore[assignment]  # no RowsModule from here on


class RowsModule(nn.Module):
    """What table and head share: keeping the trained rows and the whole matrix one."""

    trained_rows: nn.Parameter
    _rows_base_class: type[nn.Module]
    _rows_range: tuple[int, int]
    _rows_tied: bool

    @property
    def base_class(self) -> type[nn.Module]:
        """The module's class without this one."""
        return self._rows_base_class

    def whole(self, name: str = "weight") -> torch.Tensor | None:
        """The matrix (or bias) as it is to be read now, carrying no gradient."""
        # Indexed, not `get`: DeepSpeed ZeRO-3 gathers what is read past its module's forward when it is indexed.
        whole = self._parameters[name] if name in self._parameters else None
        if whole is not None:
            _overlay(whole, self._rows_of(name), *self._rows_range)
        return whole

    def _rows_of(self, name: str) -> nn.Parameter:
        """The rows of the matrix (or bias) that train."""
        rows = self._parameters[TRAINED[name]]
        assert rows is not None  # install has registered it
        return rows

    def exposed(self, name: str) -> torch.Tensor | None:
        """The matrix (or bias) as a tensor whose gradient reaches the trained rows.

        This is what `module.weight` gives, for code that reads it past the module's forward: fused linear
        cross-entropy kernels (Liger, cut cross-entropy) do, and so do heads with a forward of their own.
        """
        whole = self.whole(name)
        if whole is None or not torch.is_grad_enabled():
            return whole
        rows = self._rows_of(name)
        if not rows.requires_grad:
            return whole
        # FSDP2 empties the gathered matrix after the forward pass and fills it again for the backward pass, then
        # without the trained rows: whoever saved it for its own backward pass needs a copy.
        copy = not _shares(whole, rows, self._rows_range[0]) and not is_partitioned(whole)
        return _Expose.apply(whole, rows, *self._rows_range, copy)

    # nn.Module keeps parameters in `_parameters`, so these properties shadow reading only.
    @property
    def weight(self) -> torch.Tensor | None:
        """The matrix, (rows, hidden), as other code reads it: a gradient to it reaches the trained rows."""
        # transformers ties by assigning one module's weight to the other, which needs the Parameter itself;
        # while the model's forward runs nothing is tied, and the flag is down (see freeze).
        return self.whole("weight") if self._rows_tied else self.exposed("weight")

    def write_back(self) -> None:
        """Bring `weight[start:stop]` up to date. Sharded, it gathers: every rank must call it."""
        for _, whole, rows in self._pairs():
            if whole.is_meta:
                continue
            if is_partitioned(whole):
                with gathered(whole, rows, modify=True):
                    whole.data[self._rows_range[0] : self._rows_range[1]].copy_(rows.data)
            elif is_dtensor(whole):
                write_shard(whole, full(rows), *self._rows_range)
            else:
                _overlay(whole, rows, *self._rows_range)

    def read_rows(self) -> None:
        """Take the trained rows from `weight`, after a checkpoint was loaded into it. Sharded, it gathers."""
        start, stop = self._rows_range
        for name, whole, rows in self._pairs():
            if whole.is_meta or whole.numel() == 0:
                continue
            if is_dtensor(whole):
                assert is_dtensor(rows)  # what shards one shards the other
                values = full(whole)[start:stop]
                if rows.is_meta:
                    self._parameters[TRAINED[name]] = distribute_like(rows, values)
                else:
                    write_shard(rows, values, 0, stop - start)
            elif rows.is_meta or rows.device != whole.device or rows.dtype != whole.dtype:
                self._parameters[TRAINED[name]] = nn.Parameter(whole.data[start:stop], rows.requires_grad)
            elif not _shares(whole, rows, start):
                rows.data.copy_(whole.data[start:stop])

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> RowsModule:
        """`.to()` moves each Parameter by itself; rows that shared the matrix's storage share it again."""
        start, stop = self._rows_range
        shared = {name for name, whole, rows in self._pairs() if _shares(whole, rows, start)}
        super()._apply(fn, recurse)
        for name, whole, rows in self._pairs():
            if name in shared and not whole.is_meta and not is_dtensor(whole):
                rows.data = whole.data[start:stop]
        return self

    def _pairs(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        """The matrix, and the bias if there is one: its name, the whole, and its rows that train."""
        for name, rows_name in TRAINED.items():
            # `get`, not indexed: nothing is gathered by it.
            whole, rows = self._parameters.get(name), self._parameters.get(rows_name)
            if whole is not None and rows is not None:
                yield name, whole, rows

    # Their signatures are nn.Module's.
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if not any(is_partitioned(whole) for _, whole, _ in self._pairs()):  # see FrozenRows.merge
            self.write_back()
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for rows_name in TRAINED.values():
            destination.pop(prefix + rows_name, None)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        metadata: dict[str, Any],
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        for rows_name in TRAINED.values():
            if prefix + rows_name in missing:
                missing.remove(prefix + rows_name)
        if prefix + "weight" in state_dict:
            self.read_rows()


class RowsEmbedding(RowsModule, nn.Embedding):  # type: ignore[misc]  # nn.Module keeps the Parameter; we shadow reading it
    """An embedding table of which the rows [start, stop) train; no gradient exists for the others."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look up ids of any shape: their rows, with the hidden size as one more dimension."""
        start, _ = self._rows_range
        return _Lookup.apply(input, self.whole(), self.trained_rows, start, self.padding_idx)


class RowsHead(RowsModule, nn.Linear):  # type: ignore[misc]  # nn.Module keeps the Parameter; we shadow reading it
    """A linear head of which the rows [start, stop), bias included, train."""

    @property
    def bias(self) -> torch.Tensor | None:  # type: ignore[override]  # as `weight`
        """The bias, (rows,), as `weight`; None where the head has none."""
        return self.exposed("bias")

    def trained(self) -> tuple[nn.Parameter, nn.Parameter | None, int]:
        """The rows that train, (count, hidden), their bias, (count,), if the head has one, and the first one's number."""
        return self.trained_rows, self._parameters.get("trained_bias"), self._rows_range[0]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Turn hidden states, (..., hidden), into logits, (..., rows)."""
        return _Project.apply(
            input,
            self.whole("weight"),
            self.trained_rows,
            self.whole("bias"),
            self._parameters.get("trained_bias"),
            *self._rows_range,
        )


# What autograd hands to these as `ctx` takes any attribute, so it is Any; gradients stand in the order of forward's
# arguments.
class _Lookup(torch.autograd.Function):
    """The embedding of ids by the whole table; its gradient is that of the trained rows."""

    @staticmethod
    def forward(
        ctx: Any,
        ids: torch.Tensor,
        weight: torch.Tensor,
        rows: torch.Tensor,
        start: int,
        padding_idx: int | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.start, ctx.count, ctx.padding_idx = start, rows.shape[0], padding_idx
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        local = ids - ctx.start
        other = (local < 0) | (local >= ctx.count)
        if ctx.padding_idx is not None:  # as nn.Embedding: the padding token's row gets no gradient
            other |= ids == ctx.padding_idx
        # All other ids go to one extra row that the kernel leaves out; no copy of the gradient, no sync.
        local = local.masked_fill(other, ctx.count)
        rows = torch.ops.aten.embedding_dense_backward(grad, local, ctx.count + 1, ctx.count, False)
        return None, None, rows[: ctx.count], None, None


class _Project(torch.autograd.Function):
    """The logits of the whole head; its gradients are those of its input, the trained rows and their bias."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        rows: torch.Tensor,
        bias: torch.Tensor | None,
        bias_rows: torch.Tensor | None,
        start: int,
        stop: int,
    ) -> torch.Tensor:
        ctx.range = (start, stop)
        needs_hidden, needs_rows = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        ctx.save_for_backward(
            hidden if needs_rows else None,
            weight if needs_hidden else None,
            rows,
        )
        ctx.hidden_dtype = hidden.dtype
        return F.linear(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, rows = ctx.saved_tensors
        start, stop = ctx.range
        flat = grad.reshape(-1, grad.shape[-1])
        trained = flat[:, start:stop]
        hidden_grad = rows_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            _overlay(weight, rows, start, stop)  # a matrix gathered anew for the backward pass
            hidden_grad = (flat @ weight.to(flat.dtype)).view(*grad.shape[:-1], -1).to(ctx.hidden_dtype)
        if ctx.needs_input_grad[2]:
            # Under autocast the forward ran in the gradient's dtype, so the product does here too.
            rows_grad = (trained.t() @ hidden.reshape(-1, hidden.shape[-1]).to(flat.dtype)).to(rows.dtype)
        if ctx.needs_input_grad[4]:
            bias_grad = trained.sum(0).to(rows.dtype)
        return hidden_grad, None, rows_grad, None, bias_grad, None, None


class _Expose(torch.autograd.Function):
    """The whole matrix, as a tensor whose gradient reaches the trained rows."""

    @staticmethod
    def forward(
        ctx: Any, whole: torch.Tensor, rows: torch.Tensor, start: int, stop: int, copy: bool
    ) -> torch.Tensor:
        ctx.range = (start, stop)
        return whole.detach().clone() if copy else whole.detach()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        start, stop = ctx.range
        rows = grad[start:stop].clone()  # a copy, so that the whole gradient is let go
        return None, rows, None, None, None


def _shares(whole: torch.Tensor, rows: torch.Tensor, start: int) -> bool:
    """Whether `rows` is the storage of `whole[start:]`."""
    if whole.is_meta or rows.is_meta:
        return whole.is_meta and rows.is_meta
    if is_dtensor(whole) or is_dtensor(rows) or whole.device != rows.device or whole.dtype != rows.dtype:
        return False
    offset = start * (whole.stride(0) if whole.dim() else 1) * whole.element_size()
    return whole.numel() > 0 and whole.data_ptr() + offset == rows.data_ptr()


def _overlay(whole: torch.Tensor, rows: torch.Tensor, start: int, stop: int) -> None:
    """Copy the trained rows into the whole matrix where the two do not share storage.

    Does nothing while the matrix is not whole (sharded, partitioned, on the meta device): it is only read
    when it is. Written through `.data`, so a graph that saved the matrix does not take it for changed.
    """
    if is_dtensor(whole) or whole.is_meta or rows.is_meta or whole.numel() == 0 or rows.numel() == 0:
        return
    if not _shares(whole, rows, start):
        whole.data[start:stop].copy_(rows.data)
