"""Checksums of everything that must not change in a stage, and the comparison that proves it did not.

Each row of an embedding matrix, and each other frozen parameter, gets one 64-bit checksum: a multilinear
hash, the sum over its elements (their bits read as integers) times fixed pseudo-random odd 64-bit keys,
modulo 2**64. A change of any single element always shows; that several changes cancel by accident has a
probability of about 2**-32 a row and less for all. It guards against bugs, not against an adversary.

Being a sum, it needs no gathering: each rank sums what it holds and the sums are added up, 8 bytes a row,
so the fingerprint is the same however the model is sharded, and it is computed on the device the weights
are on, in chunks of a few megabytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.rows.masks import MatrixMask, RowMask
from eeve_axolotl.rows.modules import TRAINED
from eeve_axolotl.rows.sharded import is_dtensor, is_partitioned, shape_of, shard_offset

_TILE = 1 << 16  # elements summed with one set of keys
_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 24}  # elements at a time: within a CPU's cache, and busy for a GPU
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


class FrozenMovedError(RuntimeError):
    """Something that this stage freezes has changed. `evidence` says what: {block: [rows] or "changed"}."""

    def __init__(self, message: str, evidence: dict[str, list[int] | str]):
        super().__init__(message)
        self.evidence = evidence


@dataclass
class Fingerprint:
    """Checksums by block. An embedding matrix has one a row (the frozen ones), anything else just one."""

    rows: dict[str, dict[int, int]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict, compare=False)
    """Of what trains, one a parameter: it should change."""

    def unmoved(self, after: Fingerprint) -> list[str]:
        """The trained parameters that did not change."""
        return [name for name, value in self.trained.items() if after.trained.get(name) == value]

    def summary(self) -> dict[str, str]:
        """One digest (hex, 128 bits) for each matrix's frozen rows and one for all internal layers."""
        blocks: dict[str, list[tuple[object, int]]] = {
            name: list(sums.items()) for name, sums in self.rows.items()
        }
        blocks["internal_layers"] = sorted(self.parameters.items())
        return {
            name: hashlib.blake2b(repr(items).encode(), digest_size=16).hexdigest()
            for name, items in blocks.items()
            if items
        }

    def moved(self, after: Fingerprint) -> dict[str, list[int] | str]:
        """What differs: for a matrix the rows that moved, for another parameter the word "changed"."""
        moved: dict[str, list[int] | str] = {}
        for name, sums in self.rows.items():
            others = after.rows.get(name, {})
            rows = [row for row, value in sums.items() if others.get(row) != value]
            if rows:
                moved[name] = rows
        for name, value in self.parameters.items():
            if after.parameters.get(name) != value:
                moved[name] = "changed"
        return moved

    def check(self, after: Fingerprint) -> None:
        """Raise FrozenMovedError, with all that moved as its evidence, unless `after` is the same."""
        moved = self.moved(after)
        if not moved:
            return
        told = [
            f"{len(what)} of {len(self.rows[name])} frozen rows of {name} (first: {what[0]})"
            if isinstance(what, list)
            else name
            for name, what in moved.items()
        ]
        more = f" and {len(told) - 5} more" if len(told) > 5 else ""
        raise FrozenMovedError(
            f"What this stage freezes has changed: {', '.join(told[:5])}{more}. The weights are not to be trusted.",
            moved,
        )


def fingerprint(model: nn.Module, mask: RowMask, trained: Collection[str] | None = None) -> Fingerprint:
    """Checksums of all that `mask` freezes in `model`: every frozen row and every other frozen parameter.

    Compare two of one stage with `before.check(after)`. Under FSDP2 or ZeRO-3 every rank must call it.

    Args:
        trained: names of the parameters that the stage trains, whatever requires a gradient by now. Left out,
            they are those that do.
    """
    if trained is None:
        trained = {name for name, each in model.named_parameters() if each.requires_grad}
    matrices: dict[
        int, tuple[str, MatrixMask]
    ] = {}  # by the id of a matrix or bias: its block, and which rows train
    for each in mask.matrices:
        module = model.get_submodule(each.module)
        for name in TRAINED:
            parameter = module._parameters.get(name)
            if parameter is not None:
                matrices[id(parameter)] = (each.role if name == "weight" else f"{each.role}.{name}", each)

    keys, device = _KeysByDevice(), _weight_of(model, mask).device
    sums: dict[str, torch.Tensor] = {}  # by block: one sum a row of a matrix, one in all otherwise
    shards: dict[str, nn.Parameter] = {}  # blocks of which this rank holds a piece
    spans: dict[str, tuple[int, int]] = {}  # of matrices: the rows that train
    trains: set[str] = set()  # blocks that train whole
    for name, parameter in model.named_parameters():
        shape = shape_of(parameter)
        block, matrix = matrices.get(id(parameter), (name, None))
        if parameter.is_meta:
            continue
        if matrix is not None and matrix.frozen == 0:
            matrix = None  # it trains whole
        if matrix is not None:
            spans[block] = (matrix.start, matrix.stop)
            sums[block] = _row_sums(*_held(parameter), shape[1] if len(shape) == 2 else 1, shape[0], keys)
        else:
            tiles = -(-shape.numel() // _TILE)
            partial = _row_sums(*_held(parameter, device), _TILE, tiles, keys)
            sums[block] = (partial * keys.of_tiles(partial.device, tiles)).sum().view(1)
            if name in trained:
                trains.add(block)
        if _is_sharded(parameter):
            shards[block] = parameter
    _add_up(sums, shards)

    result = Fingerprint()
    for block, values in zip(sums, _to_lists(sums.values()), strict=True):
        if block in trains:
            result.trained[block] = values[0]
        elif block in spans:
            start, stop = spans[block]
            result.rows[block] = {row: sum_ for row, sum_ in enumerate(values) if not start <= row < stop}
        else:
            result.parameters[block] = values[0]
    return result


class _KeysByDevice:
    """The hash's keys: those of the elements of a row or tile, and those of the tiles of a parameter."""

    def __init__(self) -> None:
        self._elements: dict[torch.device, torch.Tensor] = {}
        self._tiles: dict[torch.device, torch.Tensor] = {}

    def of_elements(self, device: torch.device) -> torch.Tensor:
        if device not in self._elements:
            self._elements[device] = _keys(0, 2 * _TILE).to(device)
        return self._elements[device]

    def of_tiles(self, device: torch.device, count: int) -> torch.Tensor:
        if device not in self._tiles or len(self._tiles[device]) < count:
            self._tiles[device] = _keys(1 << 40, count).to(device)
        return self._tiles[device][:count]


def _keys(first: int, count: int) -> torch.Tensor:
    """`count` fixed odd 64-bit integers: splitmix64 of first + 1, first + 2, ... with the lowest bit set."""
    with np.errstate(over="ignore"):
        x = np.arange(first + 1, first + 1 + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = (x ^ (x >> np.uint64(31))) | np.uint64(1)
    return torch.from_numpy(x.view(np.int64))


def _row_sums(held: torch.Tensor, offset: int, width: int, rows: int, keys: _KeysByDevice) -> torch.Tensor:
    """int64 (rows,): the keyed sum of each run of `width` elements of a parameter, as far as they are in
    `held`, a piece of it that begins at its element number `offset`."""
    elements = held.detach().reshape(-1)
    if elements.element_size() == 8:  # the keys need room above the elements' bits
        elements, offset, width = elements.view(torch.int32), 2 * offset, 2 * width
    else:
        elements = elements.view(_INTEGERS[elements.element_size()])
    key = keys.of_elements(elements.device)[:width]
    sums = torch.zeros(rows, dtype=torch.int64, device=elements.device)
    at = 0
    while at < len(elements):  # a shard may begin and end inside a row: up to the boundary, then whole rows
        row, column = divmod(offset + at, width)
        whole = (len(elements) - at) // width
        if column or not whole:
            count = min(width - column, len(elements) - at)
            sums[row] += (elements[at : at + count] * key[column : column + count]).sum()
        else:
            take = min(whole, max(1, _CHUNK.get(elements.device.type, 1 << 24) // width))
            count = take * width
            sums[row : row + take] = (elements[at : at + count].view(take, width) * key).sum(1)
        at += count
    return sums


def _weight_of(model: nn.Module, mask: RowMask) -> torch.Tensor:
    """The input embeddings, which lie where the model computes."""
    weight = model.get_submodule(mask.inputs.module)._parameters["weight"]
    assert weight is not None  # row_mask has looked
    return weight


def _held(parameter: nn.Parameter, device: torch.device | None = None) -> tuple[torch.Tensor, int]:
    """What this rank holds of a parameter, and the index of its first element in the flattened whole.

    Args:
        device: where the model computes. What is kept in the machine's memory beside a model on a GPU is summed there,
            which takes seconds where a CPU takes minutes.
    """
    if is_partitioned(parameter):
        import torch.distributed as dist

        piece = parameter.ds_tensor.data.reshape(-1)
        first = dist.get_rank(parameter.ds_process_group) * piece.numel()
        return piece[: max(0, parameter.ds_numel - first)], first  # the last piece is padded
    if is_dtensor(parameter):
        if any(each.is_shard() and not each.is_shard(0) for each in parameter.placements):
            raise EEVEError(
                "This model is sharded by columns (tensor parallelism), where rows cannot be followed: use FSDP2, "
                "DeepSpeed ZeRO or plain data parallelism (`tensor_parallel_size: 1`)."
            )
        first, _ = shard_offset(parameter)
        return parameter.to_local(), first * torch.Size(parameter.shape[1:]).numel()
    if device is not None and device.type == "cuda" and parameter.device.type == "cpu":
        return parameter.detach().to(device), 0
    return parameter, 0


def _is_sharded(parameter: nn.Parameter) -> bool:
    return is_partitioned(parameter) or is_dtensor(parameter)


def _add_up(sums: dict[str, torch.Tensor], shards: dict[str, nn.Parameter]) -> None:
    """Add the ranks' partial sums, in place: one reduction for each way the blocks are laid out."""
    layouts: dict[object, list[str]] = {}
    for name, parameter in shards.items():
        if is_partitioned(parameter):
            layouts.setdefault(parameter.ds_process_group, []).append(name)
        elif is_dtensor(parameter):
            layouts.setdefault((parameter.device_mesh, parameter.placements), []).append(name)
    for names in layouts.values():
        joined = _reduced(torch.cat([sums[name] for name in names]), shards[names[0]])
        for name, each in zip(names, joined.split([len(sums[name]) for name in names]), strict=True):
            sums[name] = each


def _reduced(partial: torch.Tensor, like: nn.Parameter) -> torch.Tensor:
    """The sum of all ranks' `partial` sums of parameters that are sharded as `like` is."""
    if is_partitioned(like):
        import torch.distributed as dist

        partial = partial.to(like.device)
        dist.all_reduce(partial, group=like.ds_process_group)
        return partial
    from torch.distributed.tensor import DTensor, Partial, Replicate

    assert is_dtensor(like)
    mesh = like.device_mesh
    placements = [Partial() if each.is_shard() else Replicate() for each in like.placements]
    return DTensor.from_local(partial.to(mesh.device_type), mesh, placements).full_tensor()


def _to_lists(tensors: Iterable[torch.Tensor]) -> list[list[int]]:
    """The tensors' numbers, in one transfer from the device for all."""
    tensors = list(tensors)
    if not tensors:
        return []
    joined = torch.cat([each.cpu() for each in tensors] if len({t.device for t in tensors}) > 1 else tensors)
    return [each.tolist() for each in joined.cpu().split([len(each) for each in tensors])]
