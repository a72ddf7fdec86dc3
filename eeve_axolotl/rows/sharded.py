"""Parameters of which this process holds only a piece: DTensors (FSDP2), and DeepSpeed ZeRO-3's partitioned ones.

All that is particular to either stands here; the rest of this package asks. A function that gathers says so:
every rank must call it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

    class PartitionedParameter(nn.Parameter):
        """What DeepSpeed ZeRO-3 adds to a Parameter; its own elements are there only while it is gathered."""

        ds_id: int
        ds_shape: torch.Size
        ds_numel: int
        ds_tensor: torch.Tensor
        ds_process_group: Any  # a torch.distributed.ProcessGroup, or DeepSpeed's stand-in for one


def is_dtensor(tensor: torch.Tensor) -> TypeGuard[DTensor]:
    """Whether FSDP2 (or another user of DTensor) has sharded it."""
    return hasattr(tensor, "placements")


def is_partitioned(tensor: torch.Tensor) -> TypeGuard[PartitionedParameter]:
    """Whether DeepSpeed ZeRO-3 has partitioned it."""
    return hasattr(tensor, "ds_id")


def shape_of(parameter: torch.Tensor) -> torch.Size:
    """The whole parameter's shape."""
    return torch.Size(parameter.ds_shape if is_partitioned(parameter) else parameter.shape)


def full(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a DTensor on every rank, detached; anything else as it is. Gathers."""
    tensor = tensor.detach()
    if not is_dtensor(tensor):
        return tensor
    on_device = tensor.to(tensor.device_mesh.device_type)  # where collectives want it, if it was offloaded
    assert is_dtensor(on_device)
    return on_device.full_tensor()


def gathered(*parameters: torch.Tensor, modify: bool = False) -> contextlib.AbstractContextManager[object]:
    """Context that holds ZeRO-3's parameters whole, and does nothing where there are none. Gathers.

    With `modify` what rank 0 wrote into them is what all ranks keep.
    """
    partitioned = [each for each in parameters if is_partitioned(each)]
    if not partitioned:
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0 if modify else None)


def shard_offset(tensor: DTensor) -> tuple[int, int]:
    """The first global row of this rank's shard, and how many rows the shard has."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return offset[0], shape[0]


def write_shard(whole: DTensor, rows: torch.Tensor, start: int, stop: int) -> None:
    """Write `rows`, the global rows [start, stop), into this rank's shard as far as it has them."""
    first, count = shard_offset(whole)
    low, high = max(start, first), min(stop, first + count)
    if low < high:
        data = whole.data
        assert is_dtensor(data)
        data.to_local()[low - first : high - first].copy_(rows[low - start : high - start])


def distribute_like(like: DTensor, values: torch.Tensor) -> nn.Parameter:
    """`values`, which every rank has whole, as a Parameter sharded as `like` is."""
    from torch.distributed.tensor import distribute_tensor

    # src_data_rank=None: every rank has the values already and cuts its own shard, without traffic.
    rows = distribute_tensor(values.contiguous(), like.device_mesh, like.placements, src_data_rank=None)
    return nn.Parameter(rows.clone(), like.requires_grad)
