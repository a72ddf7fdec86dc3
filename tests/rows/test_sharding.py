"""Frozen rows under data parallelism and sharding: two real processes on the CPU (see two_processes.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.rows import optimizers, ways
from tests.rows.helpers import BASE, EMBEDDING_STAGES, HIDDEN, VOCAB

WAYS = [f"{way}/{stage}" for way in ("ddp", *ways.FSDP2, *ways.ZERO) for stage in EMBEDDING_STAGES]
VARIANTS = [
    "ddp+plain/3",
    "fsdp2+plain/2",
    "fsdp2+plain/3",
    "zero1+plain/3",
    "zero3+plain/2",
    "zero3+plain/3",
    "fsdp2+own_groups/2",
    "fsdp2+past_the_head/3",
    "fsdp2+past_the_head+tied/3",
    "zero3+past_the_head/3",
    "fsdp2+own_groups/3",
    "fsdp2+bf16/3",
    "fsdp2+uneven/3",
    "fsdp2+checkpointing/5",
    "fsdp2+checkpointing/2",
    "fsdp2+tied/3",
    "fsdp2+biased_head/3",
    "fsdp2+from_meta+accelerate/3",
    "fsdp2+from_meta+axolotl/3",
    "fsdp2+resumed/3",
    "fsdp2+rates/3",
    "fsdp2+rates+biased_head/3",
    "zero1+rates/3",
    "zero3+rates/2",
    "zero3+rates/3",
    "zero1+bf16/3",
    "zero2+bf16/3",
    "zero3+bf16/3",
    "zero1+accumulation/3",
    "zero2+accumulation/3",
    "zero3+partitioned_at_load/3",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return _Results(tmp_path_factory.mktemp("two_processes"))


class _Results:
    """Each worker runs once, when a test first asks for one of its cases."""

    def __init__(self, folder: Path):
        self.folder, self.found = folder, {}

    def __getitem__(self, case: str) -> dict:
        kind = "deepspeed" if "zero" in case else "ddp_and_fsdp2"
        if kind == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
            pytest.skip("DeepSpeed is not installed")
        if kind not in self.found:
            self.found[kind] = self._run(kind)
        return self.found[kind][case]

    def _run(self, kind: str) -> dict:
        out = self.folder / f"{kind}.json"
        worker = Path(__file__).with_name("two_processes.py")
        done = ways.launch(worker, kind, str(out), timeout=400)
        assert done.returncode == 0 and out.exists(), done.stderr[-6000:]
        return json.loads(out.read_text())


@pytest.mark.parametrize("case", WAYS + VARIANTS)
def test_frozen_rows_are_bit_identical_in_two_processes(results, case):
    assert results[case]["frozen_rows_moved"] == 0


@pytest.mark.parametrize(
    "case", [f"{way} {name}" for way, each in optimizers.SHARDED.items() for name in each]
)
def test_frozen_rows_survive_other_optimizers_in_two_processes(results, case):
    assert results[case]["frozen_rows_moved"] == 0
    assert results[case]["trained_rows_moved"] >= VOCAB - BASE
    assert not results[case]["fingerprint_changed"]


@pytest.mark.parametrize("case", WAYS + VARIANTS)
def test_rows_that_train_do_train_in_two_processes(results, case):
    stage = int(case[-1])
    new, everything = VOCAB - BASE, VOCAB
    if "uneven" in case:
        new += 1
    expected = {1: new, 2: new, 3: 2 * new, 4: everything, 5: new + everything}[stage]
    expected += new if "biased_head" in case else 0
    assert results[case]["trained_rows_moved"] == expected


@pytest.mark.parametrize("case", WAYS + VARIANTS)
def test_two_processes_train_as_one_does(results, case):
    if "accumulation" in case:
        pytest.skip("DeepSpeed ZeRO-1 and 2 accumulate differently on a CPU, with nothing frozen too")
    # A step moves an element by up to 1e-2; bf16 keeps 8 bits of elements up to about 0.1.
    assert results[case]["distance"] < (5e-3 if "bf16" in case else 2e-6)


@pytest.mark.parametrize("case", WAYS + VARIANTS)
def test_the_fingerprint_is_the_same_before_and_after_and_however_the_model_is_sharded(results, case):
    assert not results[case]["fingerprint_changed"]
    assert results[case]["fingerprint"] == results[case]["fingerprint_in_one_process"]


@pytest.mark.parametrize("case", WAYS + VARIANTS)
def test_gathered_weights_have_the_keys_of_a_plain_model(results, case):
    assert results[case]["keys_as_plain"]


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
@pytest.mark.parametrize("way", ["ddp", "fsdp2", "zero1", "zero2", "zero3"])
def test_optimizer_state_exists_for_trained_rows_only_and_is_sharded(results, way, stage):
    rows = {1: VOCAB - BASE, 2: VOCAB - BASE, 3: 2 * (VOCAB - BASE), 4: VOCAB, 5: 2 * VOCAB - BASE}[stage]
    two_moments_in_fp32 = 2 * 4 * rows * HIDDEN
    held = two_moments_in_fp32 if way == "ddp" else two_moments_in_fp32 // 2
    counters = 4 * 2  # one a parameter
    assert held <= results[f"{way}/{stage}"]["optimizer_bytes"] <= held + counters


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_ddp_reduces_what_trains_and_nothing_else(results, stage):
    assert results[f"ddp/{stage}"]["elements_reduced_per_trained"] == 1.0


def test_one_flipped_bit_in_a_shard_shows_in_the_fingerprint(results):
    assert results["fsdp2 flipped bit"]


@pytest.mark.parametrize("case, kind", [("trainer ddp", "MULTI_CPU"), ("trainer zero3", "DEEPSPEED")])
def test_checkpoints_of_the_trainer_are_whole_and_keep_frozen_rows(results, case, kind):
    assert results[case]["kind"].endswith(kind)
    assert results[case]["peaks"] == [2e-2, 2e-3]  # a group each, input embeddings first
    for checkpoint in ("checkpoint-2", "checkpoint-3"):
        assert results[case][checkpoint] == {
            "frozen_rows_moved": 0,
            "trained_rows_moved": 2 * (VOCAB - BASE),
            "keys_as_plain": True,
        }


@pytest.mark.parametrize("case", ["trainer ddp", "trainer zero3"])
def test_a_resumed_run_of_the_trainer_ends_at_the_same_bits_in_two_processes(results, case):
    assert results[case]["resumed_at_the_same_bits"]
