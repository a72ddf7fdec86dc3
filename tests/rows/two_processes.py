"""Run by test_sharding.py as two real processes (gloo, CPU): what every case found, as JSON.

    torchrun --nproc-per-node 2 two_processes.py ddp_and_fsdp2 out.json
    torchrun --nproc-per-node 2 two_processes.py deepspeed out.json

A case trains a stage for three optimiser steps, each of two accumulated micro-batches, with clipping and
weight decay, the data split between the ranks, and then compares the gathered weights with what they were
and with the same training in one process. Its loss is the one in chunks (several a micro-batch) unless the case says
plain; the one process that it is compared with has the plain loss in any case.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import types
from pathlib import Path

import torch
import torch.distributed as dist

from eeve_axolotl import rows
from eeve_axolotl.losses import linear_cross_entropy
from eeve_axolotl.losses.chunked import use_chunked_loss
from tests.rows import optimizers
from tests.rows.helpers import (
    EMBEDDING_STAGES,
    VOCAB,
    batches,
    frozen_by_stage,
    loss_of,
    mask_for,
    moved,
    read_past_the_head,
    snapshot,
    tiny_model,
    train,
)
from tests.rows.ways import (
    FSDP2,
    ZERO,
    gathered,
    leave,
    shard,
    two_processes,
    zero_config,
    zero_step,
    zero_weights,
)

WIDE = {"hidden_size": 128}  # at which bitsandbytes keeps its state in 8 bits
STEPS, ACCUMULATE, CLIP, LR, DECAY = 3, 2, 0.5, 1e-2, 0.1
RATES = {"input_embeddings": 2 * LR, "output_embeddings": LR / 5}


def adamw(model, **options):
    # A large eps, because Adam otherwise turns rounding noise in tiny gradients into whole steps, and the
    # comparison with one process would measure that.
    options = {"lr": LR, "weight_decay": DECAY, "eps": 1e-4, "foreach": False, **options}
    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], **options)


def build(optimizer: str | None, model, mesh=None):
    """The optimiser of that name as Axolotl builds it, or the plain AdamW that is compared with one process."""
    if optimizer is None:
        return adamw(model)
    with tempfile.TemporaryDirectory() as folder:
        return optimizers.build(optimizer, model, folder, LR, DECAY, mesh)


def micro_batches() -> list[torch.Tensor]:
    whole = batches(STEPS * ACCUMULATE)
    return (
        [ids.chunk(dist.get_world_size())[dist.get_rank()] for ids in whole]
        if dist.is_initialized()
        else whole
    )


class Case:
    """One training: the weights before, and the findings after."""

    def __init__(
        self,
        stage: int,
        family: str = "llama",
        dtype=torch.float32,
        head_loss="chunked",
        rates=None,
        **config,
    ):
        self.stage, self.dtype, self.head_loss, self.rates = stage, dtype, head_loss, rates
        self.build = lambda: tiny_model(family, dtype, **config)
        self.model = self.build()
        self.before = snapshot(self.model)
        self.expected_frozen = frozen_by_stage(self.model, stage)

    def freeze(self, model=None):
        self.model = self.model if model is None else model
        self.frozen = rows.freeze(self.model, mask_for(self.model, self.stage))
        if self.head_loss == "chunked":
            assert use_chunked_loss(self.model)
        return self.frozen

    def findings(self, after, optimizer, first, last, accumulate: int = ACCUMULATE) -> dict:
        frozen_moved, trained_moved = moved(self.before, after, self.expected_frozen)
        alone = self.build()
        frozen_alone = rows.freeze(alone, mask_for(alone, self.stage))
        first_alone = frozen_alone.fingerprint()
        optimizer_alone = adamw(alone)
        rows.give_rates(optimizer_alone, frozen_alone, self.rates or {})
        train(alone, optimizer_alone, batches(STEPS * ACCUMULATE), accumulate, CLIP)
        expected = snapshot(alone)
        return {
            "frozen_rows_moved": frozen_moved,
            "trained_rows_moved": trained_moved,
            "optimizer_bytes": rows.optimizer_state_bytes(optimizer),
            "fingerprint_changed": bool(first.moved(last)),
            "fingerprint": first.summary(),
            "fingerprint_in_one_process": first_alone.summary(),
            "keys_as_plain": sorted(after) == sorted(expected),
            "distance": max((after[k].float() - expected[k].float()).abs().max().item() for k in expected),
        }


def ddp(stage: int, optimizer: str | None = None, **config) -> dict:
    case = Case(stage, **config)
    frozen = case.freeze()
    reduced = []

    def count(_, bucket):
        reduced.append(bucket.buffer().numel())
        done = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return done.then(lambda each: each.value()[0] / dist.get_world_size())

    wrapped = torch.nn.parallel.DistributedDataParallel(case.model)
    wrapped.register_comm_hook(None, count)
    optimizer = frozen.protect(build(optimizer, case.model))
    first = frozen.fingerprint()
    train(wrapped, optimizer, micro_batches(), ACCUMULATE, CLIP)
    result = case.findings(snapshot(case.model), optimizer, first, frozen.fingerprint())
    trained = sum(each.numel() for each in frozen.trained_parameters().values())
    result["elements_reduced_per_trained"] = sum(reduced) / len(micro_batches()) / trained
    return result


def fsdp2(
    stage: int,
    family="llama",
    config=None,
    dtype=torch.float32,
    checkpointing=False,
    optimizer: str | None = None,
    past_the_head=False,
    **options,
) -> dict:
    case = Case(stage, family, dtype, **(config or {}))
    frozen = case.freeze()
    if past_the_head:
        read_past_the_head(case.model)
    if checkpointing:
        case.model.gradient_checkpointing_enable({"use_reentrant": False})
    shard(case.model, **options)
    mesh = next(case.model.parameters()).device_mesh
    optimizer = frozen.protect(build(optimizer, case.model, mesh))
    rows.give_rates(optimizer, frozen, case.rates or {})
    first = frozen.fingerprint()
    train(case.model, optimizer, micro_batches(), ACCUMULATE, CLIP)
    return case.findings(gathered(case.model), optimizer, first, frozen.fingerprint())


def fsdp2_from_meta(stage: int, loader: str) -> dict:
    """Sharded on the meta device, then filled from rank 0 by Accelerate's or Axolotl's own function."""
    case = Case(stage)
    frozen = case.freeze()
    original = case.model.state_dict()
    case.model.to("meta")
    shard(case.model)
    accelerator = types.SimpleNamespace(is_main_process=dist.get_rank() == 0)
    if loader == "accelerate":
        from accelerate.utils.fsdp_utils import fsdp2_load_full_state_dict
    else:
        from axolotl.monkeypatch.accelerate.fsdp2 import fsdp2_load_full_state_dict
    fsdp2_load_full_state_dict(accelerator, case.model, original)
    for module, buffers in zip(case.model.modules(), case.build().modules(), strict=True):
        for name, buffer in buffers.named_buffers(recurse=False):
            module.register_buffer(name, buffer, persistent=False)
    # Axolotl's loader makes every parameter one that trains; its own code then restores what was frozen.
    rearm = frozen.trained_parameters()
    optimizer = adamw(case.model)
    first = frozen.fingerprint()
    train(case.model, optimizer, micro_batches(), ACCUMULATE, CLIP)
    result = case.findings(gathered(case.model), optimizer, first, frozen.fingerprint())
    result["trained"] = sorted(rearm)
    return result


def fsdp2_resumed(stage: int) -> dict:
    """Two of three steps, a distributed checkpoint of weights and optimiser, a new process's objects, the
    third step: as if never interrupted."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(folder)
    data, cut = micro_batches(), 2 * ACCUMULATE
    case = Case(stage)
    frozen = case.freeze()
    shard(case.model)
    first = frozen.fingerprint()
    optimizer = adamw(case.model)
    train(case.model, optimizer, data[:cut], ACCUMULATE, CLIP)
    weights, state = get_state_dict(case.model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder[0])

    model = case.build()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    frozen = case.freeze(model)
    shard(model)
    optimizer = frozen.protect(adamw(model))
    weights, state = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder[0])
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    train(model, optimizer, data[cut:], ACCUMULATE, CLIP)
    return case.findings(gathered(model), optimizer, first, frozen.fingerprint())


def wrong_bits_are_seen(wrap) -> bool:
    """Whether the fingerprint shows one bit flipped in a frozen row of one rank's shard."""
    case = Case(3)
    frozen = case.freeze()
    wrap(case.model)
    first = frozen.fingerprint()
    if dist.get_rank() == 1:
        shard_of_table = case.model.get_input_embeddings()._parameters["weight"].data.to_local()
        shard_of_table.view(torch.int32)[3, 5] ^= 1
    return first.moved(frozen.fingerprint()) == {"input_embeddings": [VOCAB // 2 + 3]}


def trainer(out: str, deepspeed: dict | None = None) -> dict:
    """The transformers Trainer itself, two processes, saving as it goes; and once more from a checkpoint."""
    from safetensors.torch import load_file
    from transformers import Trainer, TrainingArguments

    def start(folder: str):
        case = Case(3)

        class RowsTrainer(rows.FrozenRowsMixin, Trainer):
            frozen_rows = case.freeze()

            def create_optimizer(self, model=None):
                optimizer = super().create_optimizer(model)
                rows.give_rates(optimizer, self.frozen_rows, RATES)
                return optimizer

        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=ACCUMULATE,
            max_steps=STEPS,
            learning_rate=LR,
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            save_steps=2,
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **({"deepspeed": deepspeed} if deepspeed else {}),
        )
        data = [{"input_ids": ids, "labels": ids} for ids in torch.cat(batches(STEPS * ACCUMULATE))]
        return case, RowsTrainer(model=case.model, args=arguments, train_dataset=data)

    case, run = start(out)
    run.train()
    optimizer_bytes = rows.optimizer_state_bytes(run.optimizer)
    dist.barrier()
    result = {
        "kind": str(run.accelerator.distributed_type),
        "optimizer_bytes": optimizer_bytes,
        "peaks": [group["initial_lr"] for group in run.optimizer.param_groups],
    }
    for checkpoint in ("checkpoint-2", "checkpoint-3"):
        saved = load_file(Path(out, checkpoint, "model.safetensors"))
        frozen_moved, trained_moved = moved(case.before, saved, case.expected_frozen)
        result[checkpoint] = {
            "frozen_rows_moved": frozen_moved,
            "trained_rows_moved": trained_moved,
            "keys_as_plain": sorted(saved) == sorted(case.before),
        }
    # On a CPU the Trainer asks for the place "cpu:0", which torch.load does not know.
    torch.serialization.register_package(
        0, lambda _: None, lambda storage, place: storage if place == "cpu:0" else None
    )
    _, again = start(os.path.join(out, "again"))
    again.train(resume_from_checkpoint=os.path.join(out, "checkpoint-2"))
    dist.barrier()
    resumed = load_file(Path(out, "again", "checkpoint-3", "model.safetensors"))
    result["resumed_at_the_same_bits"] = all(torch.equal(saved[name], resumed[name]) for name in saved)
    return result


def zero(
    stage: int,
    level: int,
    dtype="fp32",
    partition_at_load=False,
    accumulate: int | None = None,
    optimizer: str | None = None,
    past_the_head=False,
    **sizes,
) -> dict:
    import deepspeed

    # ZeRO-1 and 2 with accumulation differ from one process on a CPU also where everything trains (measured,
    # DeepSpeed 0.18.9), so the comparison with one process is made without it.
    accumulate = accumulate or (ACCUMULATE if level == 3 else 1)

    config = zero_config(level, accumulate, CLIP, bf16=dtype == "bf16")
    case = Case(stage, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32, **sizes)
    model = case.model
    if partition_at_load:
        with deepspeed.zero.Init(config_dict_or_path=config):
            model = case.build()
        with deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0):
            if dist.get_rank() == 0:
                model.load_state_dict(case.before)
    frozen = case.freeze(model)
    if past_the_head:
        read_past_the_head(model)
    optimizer = build(optimizer, model)
    rows.give_rates(optimizer, frozen, case.rates or {})
    engine, wrapped, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    first = frozen.fingerprint()
    for ids in micro_batches():
        zero_step(engine, loss_of(engine, ids))
    last = frozen.fingerprint()
    whole = zero_weights(engine)
    if whole is None:
        return {}
    return case.findings(frozen.merge(whole), wrapped, first, last, accumulate)


def ddp_and_fsdp2(scratch: str) -> dict:
    results = {f"ddp/{stage}": ddp(stage) for stage in EMBEDDING_STAGES}
    for stage in EMBEDDING_STAGES:
        for way, options in FSDP2.items():
            results[f"{way}/{stage}"] = fsdp2(stage, **options)
    for name in optimizers.SHARDED["ddp"]:
        results[f"ddp {name}"] = ddp(3, optimizer=name, **WIDE)
    for name in optimizers.SHARDED["fsdp2"]:
        results[f"fsdp2 {name}"] = fsdp2(3, optimizer=name, config=WIDE)
    results["ddp+plain/3"] = ddp(3, head_loss="plain")
    for stage in (2, 3):
        results[f"fsdp2+plain/{stage}"] = fsdp2(stage, config={"head_loss": "plain"})
    results["fsdp2+own_groups/2"] = fsdp2(2, own_groups=True)
    results["fsdp2+past_the_head/3"] = fsdp2(3, past_the_head=True)
    results["fsdp2+past_the_head+tied/3"] = fsdp2(3, family="tied_llama", past_the_head=True)
    results["fsdp2+own_groups/3"] = fsdp2(3, own_groups=True)
    results["fsdp2+bf16/3"] = fsdp2(3, dtype=torch.bfloat16)
    results["fsdp2+uneven/3"] = fsdp2(3, config={"vocab_size": VOCAB + 1})
    results["fsdp2+checkpointing/5"] = fsdp2(5, checkpointing=True)
    results["fsdp2+checkpointing/2"] = fsdp2(2, checkpointing=True)
    results["fsdp2+tied/3"] = fsdp2(3, family="tied_llama")
    results["fsdp2+biased_head/3"] = fsdp2(3, family="phi")
    for loader in ("accelerate", "axolotl"):
        results[f"fsdp2+from_meta+{loader}/3"] = fsdp2_from_meta(3, loader)
    results["fsdp2+resumed/3"] = fsdp2_resumed(3)
    results["fsdp2+rates/3"] = fsdp2(3, config={"rates": RATES})
    results["fsdp2+rates+biased_head/3"] = fsdp2(3, family="phi", config={"rates": RATES})
    results["fsdp2 flipped bit"] = wrong_bits_are_seen(shard)
    results["trainer ddp"] = trainer(os.path.join(scratch, "ddp"))
    return results


def deepspeed(scratch: str) -> dict:
    results = {}
    for level in (1, 2, 3):
        for stage in EMBEDDING_STAGES:
            results[f"zero{level}/{stage}"] = zero(stage, level)
        results[f"zero{level}+bf16/3"] = zero(3, level, dtype="bf16")
        results[f"zero{level}+accumulation/3"] = zero(3, level, accumulate=ACCUMULATE)
    for way, level in ZERO.items():
        for name in optimizers.SHARDED[way]:
            results[f"{way} {name}"] = zero(3, level, optimizer=name, **WIDE)
    for level, stage in ((1, 3), (3, 2), (3, 3)):
        results[f"zero{level}+plain/{stage}"] = zero(stage, level, head_loss="plain")
        results[f"zero{level}+rates/{stage}"] = zero(
            stage, level, rates={"output_embeddings": RATES["output_embeddings"]}
        )
    results["zero3+past_the_head/3"] = zero(3, 3, past_the_head=True)
    results["zero3+partitioned_at_load/3"] = zero(3, 3, partition_at_load=True)
    results["trainer zero3"] = trainer(
        os.path.join(scratch, "zero3"),
        {
            "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    return results


def main(kind: str, out: str) -> None:
    run = {"ddp_and_fsdp2": ddp_and_fsdp2, "deepspeed": deepspeed}[kind]
    linear_cross_entropy._ELEMENTS["cpu"], linear_cross_entropy._LEAST_TOKENS = 8 * VOCAB, 8
    # Some optimisers compile their step, for ten seconds each; eagerly they do the same arithmetic.
    with two_processes(kind == "deepspeed"), torch.compiler.set_stance("force_eager"):
        results = run(os.path.join(os.path.dirname(out), kind))
        if dist.get_rank() == 0:
            Path(out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave()
