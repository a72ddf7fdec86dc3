"""Ways of running a model in two real processes on the CPU (gloo): DDP, FSDP2 and DeepSpeed ZeRO.

Shared by the tests' workers and by the benchmark of frozen rows. Two processes do not start through the Axolotl
CLI on a CPU, so this is the layer below: torch's and DeepSpeed's own wrappers, applied as Accelerate applies them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
FSDP2 = {
    "fsdp2": {},
    "fsdp2+no_reshard": {"reshard": False},
    "fsdp2+offload": {"offload": True},
    "fsdp2+offload+no_reshard": {"offload": True, "reshard": False},
}
ZERO = {"zero1": 1, "zero2": 2, "zero3": 3}


def launch(worker: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess:
    """Runs `worker` as two processes that know of each other, and waits for them (`timeout` in seconds)."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(worker), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@contextlib.contextmanager
def two_processes(deepspeed: bool):
    """What a worker starts and ends with."""
    torch.set_num_threads(1)
    if deepspeed:
        import deepspeed

        # Its shared-memory kernel is compiled on first use, for a minute or more; gloo does without.
        for name in ("deepspeed_shm_comm", "deepspeed_ccl_comm"):
            deepspeed.ops.__compatible_ops__[name] = False
        deepspeed.init_distributed("gloo")
        _wait_for_every_gather()
    else:
        dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    yield
    with contextlib.suppress(Exception):  # the findings are written; a rank may have gone already
        dist.destroy_process_group()


def leave() -> NoReturn:
    """Ends a worker whose findings are written, without Python's own farewell.

    There torch's and DeepSpeed's threads may still want the interpreter, which ends them and with them the process
    ("terminate called without an active exception"): seen once in some fifty runs, after everything was written.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def shard(model, offload=False, reshard=True, own_groups=False, **options):
    """`fully_shard` as Accelerate applies it: each layer, then the rest as the root."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    options["mesh"] = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp_shard",))
    options["reshard_after_forward"] = reshard
    options["offload_policy"] = CPUOffloadPolicy(pin_memory=False) if offload else OffloadPolicy()
    parts = list(getattr(model, "base_model", model).get_decoder().layers)
    if own_groups:
        parts += [model.get_input_embeddings(), model.get_output_embeddings()]
    for part in parts:
        fully_shard(part, **options)
    return fully_shard(model, **options)


def gathered(model) -> dict[str, torch.Tensor]:
    """The whole weights of a model that `shard` sharded, on every rank."""
    state = model.state_dict()
    return {
        name: value.full_tensor().clone() if hasattr(value, "full_tensor") else value
        for name, value in state.items()
    }


def zero_config(level: int, accumulate: int = 1, clip: float = 0.0, bf16: bool = False) -> dict:
    """DeepSpeed's configuration of ZeRO `level` for a CPU, with the optimiser that it is given."""
    return {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": accumulate,
        "gradient_clipping": clip,
        "zero_optimization": {"stage": level, "stage3_param_persistence_threshold": 0},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": bf16},
    }


def zero_step(engine, loss: torch.Tensor) -> None:
    """A backward pass and, when enough are accumulated, a step of a DeepSpeed engine."""
    engine.backward(loss)
    # gloo writes into views that ZeRO-1 and 2 hand it, which autograd forbids; NCCL does not care.
    with torch.no_grad():
        engine.step()


def zero_weights(engine) -> dict[str, torch.Tensor] | None:
    """The whole weights of a DeepSpeed engine, parameter by parameter; of ZeRO-3 on rank 0 only, else None."""
    if engine.zero_optimization_stage() == 3:
        whole = engine._zero3_consolidated_16bit_state_dict()
        return whole if dist.get_rank() == 0 else None
    return {name: value.detach().clone() for name, value in engine.module.state_dict().items()}


def _wait_for_every_gather() -> None:
    """Works around a race of DeepSpeed 0.18.9 on gloo, which has nothing to do with frozen rows.

    ZeRO-3 gathers the parameters of a module at once and waits for the last one only. NCCL finishes in the
    order of its stream; gloo does not, and hands out the others before they have arrived: measured on a busy
    CPU without any code of this project, in 5 % of gathers of two parameters, and none once all are awaited.
    A module with trained rows has two parameters, as one with a bias has.
    """
    from deepspeed.runtime.zero import partition_parameters

    gather = partition_parameters.dist.all_gather_into_tensor

    def gather_and_wait(*args, **kwargs):
        handle = gather(*args, **kwargs)
        if handle is not None:
            handle.wait()
        return handle

    partition_parameters.dist.all_gather_into_tensor = gather_and_wait
