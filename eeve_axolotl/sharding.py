"""Which ways of sharding a run may use: the others are refused at its start, each with what to use instead.

Supported, and proven in tests/rows/test_sharding.py: one process, DDP, FSDP2, DeepSpeed ZeRO-1, 2 and 3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl.errors import EEVEError

_INSTEAD = "use FSDP2 (`fsdp_version: 2`), DeepSpeed ZeRO or plain data parallelism"

_ONE_STAGE = (
    "several `stages` in one run need rows held whole (one process or DDP), and this run is sharded; give each stage "
    "a run of its own (`stage: 1`, ...), which `axolotl eeve run` chains"
)

_HELD_WHOLE = (
    "`eeve.frozen_precision: fp8` keeps the layers' own weights beside the model, which sharding would cut, and this run "
    "is sharded; remove `frozen_precision`, or the sharding: plain data parallelism (DDP) holds the model whole"
)

_ITS_OWN = (
    "`input_learning_rate` and `output_learning_rate` of `eeve:` need Axolotl's optimizer and lr_scheduler, and DeepSpeed "
    "makes its own where its config has an `optimizer` or a `scheduler` section, with one rate; remove the section"
)

# Keys of an Axolotl config that count processes, what they mean above 1, and what to do instead.
_PARALLEL = {
    "tensor_parallel_size": ("cuts matrices by columns, where rows cannot be followed", _INSTEAD),
    "context_parallel_size": (
        "cuts sequences between processes, which is not proven to keep frozen rows",
        "set a shorter `sequence_len` with sample_packing, or use FSDP2 (`fsdp_version: 2`)",
    ),
    "expert_parallel_size": ("puts experts on different processes, which is not proven", _INSTEAD),
}
_SYNONYMS = {"sequence_parallel_degree": "context_parallel_size"}  # Axolotl's older name

# Keys of `zero_optimization` in a DeepSpeed config that change how weights are kept where they are above this.
_ZERO = {
    "zero_hpz_partition_size": (1, "keeps a second copy of the weights (ZeRO++)"),
    "zero_quantized_weights": (False, "rounds the weights that it gathers (ZeRO++)"),
    "mics_shard_size": (0, "shards within groups and copies between them (MiCS)"),
}

# With which ZeRO-3 saves whole weights: DeepSpeed knows it by both names, and Axolotl's own files use the second.
_GATHERS = ("stage3_gather_16bit_weights_on_model_save", "gather_16bit_weights_on_model_save")

# Optimisers of bitsandbytes and Adafactor stop at FSDP2's shards in their first step, whatever trains: an
# operator without a sharding strategy, a plain tensor mixed with shards (benchmarks/frozen_rows.py shows both).
_NOT_FOR_FSDP2 = re.compile(
    r"adafactor|(paged_)?(adamw|lion|ademamix|rmsprop)(_bnb)?(_8bit|_32bit)|ademamix|rmsprop_bnb"
)


def problems(
    cfg: Mapping[str, Any],
    untie: bool = False,
    stages: int = 1,
    in_fp8: bool = False,
    own_rates: bool = False,
) -> Iterator[str]:
    """Every way of sharding in `cfg` that cannot keep, or prove, frozen rows, and what to use instead.

    Works on the raw mapping, before Axolotl's own validation. `untie` is the run's `eeve.untie`,
    `stages` how many stages it has, `in_fp8` whether it holds its frozen layers in 8 bits, `own_rates` whether an
    embedding matrix has a learning rate of its own.
    """
    for key, value in cfg.items():
        key_now = _SYNONYMS.get(key, key)
        if key_now in _PARALLEL and (value or 1) > 1:
            why, instead = _PARALLEL[key_now]
            yield f"`{key}: {value}` {why}; remove it, and {instead}"
    if stages > 1 and any(cfg.get(key) for key in ("fsdp", "fsdp_config", "deepspeed")):
        yield _ONE_STAGE
    if in_fp8 and any(cfg.get(key) for key in ("fsdp", "fsdp_config", "deepspeed")):
        yield _HELD_WHOLE
    if cfg.get("fsdp") or cfg.get("fsdp_config"):
        yield from _of_fsdp(cfg)
    if cfg.get("deepspeed"):
        yield from _of_deepspeed(cfg["deepspeed"], untie, own_rates)


def check_sharding(
    cfg: Mapping[str, Any], untie: bool = False, stages: int = 1, in_fp8: bool = False
) -> None:
    """Raise EEVEError with the first of the `problems`."""
    for problem in problems(cfg, untie, stages, in_fp8):
        raise EEVEError(problem)


def check_loaded(model) -> None:
    """Raise EEVEError where this process was given no weights: a launcher too can ask for that.

    Of such weights nothing could be fingerprinted, and new rows could not be made of them.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise EEVEError(
            "this process was given no weights, as `fsdp_cpu_ram_efficient_loading` asks for, so new rows could not be set "
            "nor frozen ones compared in it; switch that off in the launcher"
        )


def check_started(accelerator, stages: int = 1, in_fp8: bool = False, own_rates: bool = False) -> None:
    """Raise EEVEError where the launcher, not the config, chose a way of sharding that is not supported.

    `accelerator` is the trainer's: Accelerate may have been given FSDP1 or others on its command line.
    `stages`, `in_fp8` and `own_rates` are those of `problems`.
    """
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if in_fp8 and kind in ("FSDP", "DEEPSPEED"):
        raise EEVEError(_HELD_WHOLE)
    if stages > 1 and kind in ("FSDP", "DEEPSPEED"):
        raise EEVEError(_ONE_STAGE)
    if (
        own_rates
        and kind == "DEEPSPEED"
        and _makes_its_own(accelerator.state.deepspeed_plugin.deepspeed_config)
    ):
        raise EEVEError(_ITS_OWN)
    if kind == "FSDP" and not accelerator.is_fsdp2:
        raise EEVEError(
            "Accelerate was started with FSDP1, which flattens rows away; start it with `--fsdp_version 2`, or "
            "set `fsdp_version: 2` and `fsdp_config` in the YAML"
        )
    if kind in ("MEGATRON_LM", "XLA"):
        raise EEVEError(f"Accelerate was started with {kind}, where rows cannot be followed; {_INSTEAD}")
    sizes = getattr(accelerator, "parallelism_config", None)
    for key, size in (("tensor_parallel_size", "tp_size"), ("context_parallel_size", "cp_size")):
        check_sharding({key: getattr(sizes, size, 1)})


def _of_fsdp(cfg: Mapping[str, Any]) -> Iterator[str]:
    settings = cfg.get("fsdp_config") or {}
    version = cfg.get("fsdp_version") or settings.get("fsdp_version") or settings.get("version") or 1
    if str(version) != "2":
        yield (
            "FSDP1 flattens parameters, so rows cannot be followed; set `fsdp_version: 2` (with `fsdp_config`), "
            "which shards the same way"
        )
    if (cfg.get("dp_replicate_size") or 1) > 1:
        yield (
            "`dp_replicate_size` with FSDP shards within groups and copies between them, which is not proven to "
            "keep frozen rows; remove it, and shard over all processes (`dp_shard_size` alone)"
        )
    if settings.get("cpu_ram_efficient_loading") or settings.get("fsdp_cpu_ram_efficient_loading"):
        yield (
            "`fsdp_config.cpu_ram_efficient_loading: true` leaves every process but the first without weights until they "
            "are sharded, so new rows could not be set nor frozen ones compared there; set it to false"
        )
    optimizer = str(cfg.get("optimizer") or "")
    if _NOT_FOR_FSDP2.fullmatch(optimizer):
        yield (
            f"`optimizer: {optimizer}` cannot step the shards of FSDP2; set adamw_torch_fused or adamw_torch_8bit, or "
            "use DeepSpeed ZeRO or plain data parallelism"
        )


def _makes_its_own(config: Mapping[str, Any]) -> bool:
    """Whether DeepSpeed makes optimiser or schedule by this config of its own."""
    return bool(config.get("optimizer") or config.get("scheduler"))


def _of_deepspeed(given: Mapping | str, untie: bool, own_rates: bool) -> Iterator[str]:
    config, where = (given, "`deepspeed`") if isinstance(given, Mapping) else (_read(given), given)
    zero = config.get("zero_optimization") or {} if isinstance(config, Mapping) else None
    if not isinstance(zero, Mapping):
        raise EEVEError(f"{where} is no DeepSpeed config; give a mapping with `zero_optimization`")
    if own_rates and _makes_its_own(config):
        yield _ITS_OWN
    stage = zero.get("stage", 0)
    if stage not in (1, 2, 3):
        yield (
            f"{where} sets ZeRO stage {stage}, which only copies the model; remove `deepspeed` for plain data "
            "parallelism, or set `zero_optimization.stage` to 1, 2 or 3"
        )
    for key, (harmless, why) in _ZERO.items():
        if zero.get(key, harmless) > harmless:
            yield f"{where} sets `{key}`, which {why}: frozen rows are not proven there; remove it"
    named = [name for name in _GATHERS if name in zero]
    if len(named) > 1:
        yield f"{where} sets `{named[0]}` and `{named[1]}`, two names of one key; remove one"
    elif stage == 3 and not any(zero[name] is True for name in named):  # "auto" is no
        yield (
            f"{where} saves ZeRO-3 weights in pieces, in which trained rows lie apart from their matrix; set "
            f"`zero_optimization.{_GATHERS[0]}: true`"
        )
    if (zero.get("offload_param") or {}).get("device") == "nvme":
        yield (
            f"{where} keeps the weights on a disk (`offload_param.device: nvme`), where frozen rows cannot be "
            "fingerprinted; set `cpu`"
        )
    if (config.get("tensor_parallel") or {}).get("autotp_size", 0) > 1:
        yield f"{where} sets `tensor_parallel`, which cuts matrices by columns; remove it"
    if untie and stage == 3:
        yield (
            "`eeve.untie: true` cannot be used with DeepSpeed ZeRO-3, which partitions the model as it loads; use "
            "ZeRO-2 or FSDP2 (`fsdp_version: 2`) for the run that unties, or untie the model beforehand in one "
            "process"
        )


def _read(path: str) -> Any:
    """A DeepSpeed config's content. Raises EEVEError if it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EEVEError(
            f"deepspeed: {path} does not exist; fetch Axolotl's own with `axolotl fetch deepspeed_configs`"
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise EEVEError(f"deepspeed: {path} is not a readable JSON file: {error}") from None
