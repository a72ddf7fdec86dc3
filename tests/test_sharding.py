"""Ways of sharding that cannot keep or prove frozen rows are refused, each with what to use instead."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from axolotl.utils.dict import DictDefault

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sharding import check_sharding, check_started


def register(cfg: DictDefault) -> None:
    from eeve_axolotl.plugin import EEVEPlugin  # slow to import: it brings Axolotl's trainer

    EEVEPlugin().register(cfg)


def zero(stage, **keys):
    gather = {"stage3_gather_16bit_weights_on_model_save": True}
    return {"deepspeed": {"zero_optimization": {"stage": stage, **gather, **keys}}}


def fsdp2(optimizer):
    return {"fsdp_version": 2, "fsdp_config": {"offload_params": True}, "optimizer": optimizer}


# In the shapes of Axolotl's own four files of ZeRO-3.
OFFLOAD = {"device": "cpu", "pin_memory": True}
AXOLOTLS_ZERO3 = {
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 0,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "max_live_parameters": 0,
        "max_reuse_distance": 0,
        "gather_16bit_weights_on_model_save": True,
    },
    "bf16": {"enabled": "auto"},
    "gradient_accumulation_steps": "auto",
}


def axolotls_zero3(**keys):
    zero = {**AXOLOTLS_ZERO3["zero_optimization"], **keys}
    return {"deepspeed": {**AXOLOTLS_ZERO3, "zero_optimization": zero}}


REFUSED = [
    ({"fsdp": ["full_shard", "auto_wrap"]}, "FSDP1 flattens.*set `fsdp_version: 2`"),
    ({"fsdp_config": {"reshard_after_forward": True}}, "FSDP1 flattens.*set `fsdp_version: 2`"),
    ({"fsdp_version": 1, "fsdp_config": {"offload_params": True}}, "FSDP1 flattens"),
    ({"fsdp_version": 2, "fsdp_config": {"x": 1}, "dp_replicate_size": 2}, "`dp_shard_size` alone"),
    (fsdp2("adamw_bnb_8bit"), "`optimizer: adamw_bnb_8bit` cannot step.*adamw_torch_8bit"),
    (fsdp2("paged_lion_8bit"), "cannot step the shards of FSDP2"),
    (fsdp2("ademamix"), "cannot step the shards of FSDP2"),
    (fsdp2("rmsprop_bnb_32bit"), "cannot step the shards of FSDP2"),
    (fsdp2("adafactor"), "cannot step the shards of FSDP2"),
    ({"tensor_parallel_size": 2}, "by columns.*use FSDP2"),
    ({"context_parallel_size": 4}, "cuts sequences.*shorter `sequence_len`"),
    ({"sequence_parallel_degree": 2}, "`sequence_parallel_degree: 2` cuts sequences"),
    ({"expert_parallel_size": 2}, "experts.*use FSDP2"),
    ({"deepspeed": {"bf16": {"enabled": True}}}, "ZeRO stage 0.*to 1, 2 or 3"),
    (zero(3, zero_hpz_partition_size=8), "`zero_hpz_partition_size`.*remove it"),
    (zero(3, zero_quantized_weights=True), "`zero_quantized_weights`.*remove it"),
    (zero(3, mics_shard_size=1), "`mics_shard_size`.*remove it"),
    (zero(3, stage3_gather_16bit_weights_on_model_save=False), "in pieces.*set `zero_optimization"),
    (axolotls_zero3(gather_16bit_weights_on_model_save=False), "in pieces.*set `zero_optimization"),
    (axolotls_zero3(gather_16bit_weights_on_model_save="auto"), "in pieces.*set `zero_optimization"),
    (axolotls_zero3(stage3_gather_16bit_weights_on_model_save=True), "two names of one key.*remove one"),
    (
        {"fsdp_version": 2, "fsdp_config": {"cpu_ram_efficient_loading": True}},
        "cpu_ram_efficient_loading: true` leaves every process but the first without weights.*set it to false",
    ),
    (zero(3, offload_param={"device": "nvme"}), "offload_param.device: nvme.*set `cpu`"),
    ({"deepspeed": {**zero(1)["deepspeed"], "tensor_parallel": {"autotp_size": 2}}}, "`tensor_parallel`"),
    ({"deepspeed": "no/such/file.json"}, "does not exist; fetch Axolotl's own"),
]

ACCEPTED = [
    {},
    axolotls_zero3(),
    axolotls_zero3(offload_param=OFFLOAD),
    axolotls_zero3(offload_optimizer=OFFLOAD, offload_param=OFFLOAD),
    {"fsdp_version": 2, "fsdp_config": {"offload_params": True, "reshard_after_forward": False}},
    {"fsdp_config": {"fsdp_version": 2}},
    fsdp2("adamw_torch_8bit"),
    fsdp2("rmsprop"),
    fsdp2("muon"),
    {"optimizer": "adamw_bnb_8bit"},
    {"dp_replicate_size": 2, "dp_shard_size": None, "tensor_parallel_size": 1, "context_parallel_size": 1},
    zero(1),
    zero(2, offload_optimizer={"device": "cpu"}),
    zero(3, zero_hpz_partition_size=1, mics_shard_size=-1, offload_param={"device": "cpu"}),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_an_unsupported_way_of_sharding_is_refused_at_the_start_of_the_run(keys, message):
    cfg = DictDefault({"base_model": "org/model", "eeve": {"stage": 3}, **keys})
    with pytest.raises(SystemExit, match=f"eeve_axolotl: .*{message}") as stopped:
        register(cfg)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("keys", ACCEPTED)
def test_supported_ways_pass(keys):
    register(DictDefault({"base_model": "org/model", "eeve": {"stage": 3}, **keys}))


def test_a_deepspeed_file_is_read(tmp_path):
    path = tmp_path / "zero.json"
    path.write_text(json.dumps(zero(3)["deepspeed"]))
    check_sharding({"deepspeed": str(path)})
    path.write_text(json.dumps(zero(0)["deepspeed"]))
    with pytest.raises(EEVEError, match="zero.json sets ZeRO stage 0"):
        check_sharding({"deepspeed": str(path)})
    path.write_text("{")
    with pytest.raises(EEVEError, match="not a readable JSON file"):
        check_sharding({"deepspeed": str(path)})


def test_untying_under_zero3_is_refused():
    check_sharding(zero(2), untie=True)
    with pytest.raises(EEVEError, match="`eeve.untie: true` cannot be used with DeepSpeed ZeRO-3"):
        check_sharding(zero(3), untie=True)


@pytest.mark.parametrize(
    "keys", [{"fsdp_version": 2, "fsdp_config": {"reshard_after_forward": True}}, zero(2)]
)
def test_several_stages_in_a_sharded_run_are_refused_with_what_to_do(keys):
    cfg = DictDefault({"base_model": "org/model", "eeve": {"stages": [1, 2]}, **keys})
    with pytest.raises(SystemExit, match="this run is sharded; give each stage a run of its own"):
        register(cfg)


def test_what_the_launcher_chose_is_checked_too():
    """`accelerate launch --use_fsdp` and its like say nothing in the YAML."""

    def started(kind, fsdp2=False, **sizes):
        from accelerate.utils import DistributedType

        return SimpleNamespace(
            distributed_type=DistributedType(kind),
            is_fsdp2=fsdp2,
            parallelism_config=SimpleNamespace(**{"tp_size": 1, "cp_size": 1, **sizes}),
        )

    for kind in ("NO", "MULTI_CPU", "MULTI_GPU", "DEEPSPEED"):
        check_started(started(kind))
    check_started(started("FSDP", fsdp2=True))
    with pytest.raises(EEVEError, match="--fsdp_version 2"):
        check_started(started("FSDP"))
    with pytest.raises(EEVEError, match="MEGATRON_LM"):
        check_started(started("MEGATRON_LM"))
    with pytest.raises(EEVEError, match="by columns"):
        check_started(started("MULTI_GPU", tp_size=2))
    check_started(started("MULTI_GPU"), stages=5)
    for sharded in (started("FSDP", fsdp2=True), started("DEEPSPEED")):
        with pytest.raises(EEVEError, match="give each stage a run of its own"):
            check_started(sharded, stages=5)
        with pytest.raises(EEVEError, match="`eeve.frozen_precision: fp8` keeps the layers' own weights"):
            check_started(sharded, in_fp8=True)
    check_started(started("MULTI_GPU"), in_fp8=True)
    for section in ({}, {"optimizer": {"type": "AdamW"}}, {"scheduler": {"type": "WarmupLR"}}):
        by_deepspeed = started("DEEPSPEED")
        by_deepspeed.state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=section))
        check_started(by_deepspeed)
        with pytest.raises(EEVEError, match="DeepSpeed makes its own") if section else nullcontext():
            check_started(by_deepspeed, own_rates=True)
