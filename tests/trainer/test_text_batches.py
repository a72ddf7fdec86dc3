"""Which text stages read: every document once before any twice, on from the stage before, and on after a kill."""

from __future__ import annotations

import collections
import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eeve_axolotl.records import RECORD, TEXT
from tests.trainer import text_runs
from tests.trainer.text_runs import DOCUMENTS, EVENTS, STEPS, train, train_on

pytestmark = pytest.mark.usefixtures("one_thread")

WAYS = {
    "packed": {"dataloader_num_workers": 2},
    "packed into one row": {"multipack_real_batches": False},
    "packed in turn": {"sample_packing_sequentially": True, "curriculum_sampling": True},
    "one by one": {"sample_packing": False, "dataloader_num_workers": 2},
    "by length": {"sample_packing": False, "train_sampling_strategy": "group_by_length"},
}


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(
        torch.equal(each, theirs[name]) for name, each in ours.items()
    )


def text(directory: Path) -> dict:
    return json.loads((directory / RECORD).read_text())["text"]


def documents(*runs: dict[int, list[int]]) -> list[int]:
    """The documents that were read, in the order in which they were."""
    return [*itertools.chain.from_iterable(itertools.chain(*(run.values() for run in runs)))]


def times_read(*runs: dict[int, list[int]]) -> list[int]:
    """How often each document was read, in the order of their numbers."""
    counts = collections.Counter(
        itertools.chain.from_iterable(itertools.chain(*(run.values() for run in runs)))
    )
    assert counts.keys() <= set(range(DOCUMENTS))
    return [counts[number] for number in range(DOCUMENTS)]


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_stage_reads_on_and_ends_with_the_weights_of_one_that_was_not(tmp_path, way):
    read = train(tmp_path / "whole", [1], **WAYS[way])
    assert len(read) == STEPS and max(times_read(read)) - min(times_read(read)) <= 1
    draw = random.Random(way)
    if way == "packed":
        moments = sorted(draw.sample([*itertools.product(range(1, STEPS), EVENTS)], 10))
    else:  # within the first pass, where a checkpoint's text is none that a pass begins with, and in a later one
        moments = [(draw.randint(*steps), draw.choice(EVENTS)) for steps in ((3, 5), (9, 11))]
    resumed = train_on(lambda kill_at: train(tmp_path / "killed", [1], kill_at=kill_at, **WAYS[way]), moments)
    assert resumed == {step: read[step] for step in resumed}
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    assert text(tmp_path / "whole") == text(tmp_path / "killed")


def test_stages_of_one_run_and_of_a_chain_read_on_in_the_same_text(tmp_path):
    """With other micro batches in the second stage, and one that goes over the end of a pass."""
    stages = [
        {"stage": 1, "max_steps": 3},
        {"stage": 2, "max_steps": 2, "micro_batch_size": 1, "gradient_accumulation_steps": 3},
        {"stage": 5, "max_steps": 5},
    ]
    train(tmp_path / "run", stages)
    places = [tmp_path / "run/stage1", tmp_path / "run/stage2", tmp_path / "run"]
    base, runs, end = None, [], None
    for each, together in zip(stages, places, strict=True):
        alone = tmp_path / f"alone{each['stage']}"
        keys = {"max_steps": each["max_steps"]}
        if "micro_batch_size" in each:
            keys |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}
        runs.append(train(alone, [each["stage"]], base, **keys))
        assert same_weights(alone, together)
        assert text(alone) == text(together)
        assert end is None or text(alone)["from"] == end
        base, end = alone, text(alone)["to"]
    assert max(times_read(*runs)) - min(times_read(*runs)) <= 1
    assert (end["passes"], end["sequences"] + text(places[0])["from"]["of"]) == (1, 3 * 4 + 2 * 3 + 5 * 4)
    assert not set(documents(runs[0])) & set(documents(runs[1]))


def test_every_stage_reads_the_same_text_where_it_is_asked_to(tmp_path):
    first = train(tmp_path / "first", [1], max_steps=2, text="again")
    second = train(tmp_path / "second", [2], tmp_path / "first", max_steps=2, text="again")
    assert first == second
    assert text(tmp_path / "first") == text(tmp_path / "second")
    on = train(tmp_path / "on", [2], tmp_path / "first", max_steps=2)
    assert not set(documents(first)) & set(documents(on))


def test_another_seed_does_not_read_anything_again(tmp_path):
    first = train(tmp_path / "first", [1], max_steps=2)
    second = train(tmp_path / "second", [2], tmp_path / "first", max_steps=2, data_seed=99)
    assert max(times_read(first, second)) == 1
    assert train(tmp_path / "other", [1], max_steps=2, data_seed=99) != first


def test_a_stage_that_is_not_packed_reads_what_packed_ones_left(tmp_path):
    first = train(tmp_path / "first", [1], max_steps=3)
    rest = DOCUMENTS - len(documents(first))
    second = train(tmp_path / "second", [2], tmp_path / "first", sample_packing=False, max_steps=rest // 4)
    assert max(times_read(first, second)) == 1 and rest - len(documents(second)) < 4


def test_another_corpus_is_read_from_its_start(tmp_path):
    train(tmp_path / "first", [1], max_steps=2)
    train(tmp_path / "second", [2], tmp_path / "first", data=text_runs.corpus(seed=1), max_steps=1)
    start = text(tmp_path / "second")["from"]
    assert (start["passes"], start["sequences"]) == (0, 0)
    assert text(tmp_path / "second")["corpus"] != text(tmp_path / "first")["corpus"]


def test_a_checkpoint_that_read_another_text_is_refused(tmp_path):
    with pytest.raises(text_runs.Killed):
        train(tmp_path, [1], kill_at=(3, "on_step_end"))
    with pytest.raises(SystemExit, match="checkpoint-2 has read another text than the one that this config"):
        train(tmp_path, [1], data=text_runs.corpus(seed=1))
    (tmp_path / "checkpoint-2" / TEXT).unlink()
    with pytest.raises(SystemExit, match="checkpoint-2 does not say which text was read"):
        train(tmp_path, [1])
