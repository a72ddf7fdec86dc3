"""Whether frozen rows are what they were, read off the saved weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from eeve_axolotl.pipeline.summary import frozen_rows_unchanged, proven_by_record
from eeve_axolotl.stages import STAGES

OLD, NEW = 6, 9


def saved(directory, table, head=None):
    """A checkpoint: both matrices, or one that is both."""
    directory.mkdir()
    weights = {"model.embed_tokens.weight": table} | ({} if head is None else {"lm_head.weight": head})
    save_file({name: each.contiguous() for name, each in weights.items()}, directory / "model.safetensors")
    config = {"tie_word_embeddings": head is None, "eeve_axolotl": {"base_vocab_size": OLD}}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("moved, answer", [(None, "yes"), (OLD - 1, "NO"), (OLD, "yes")])
def test_old_rows_are_compared_with_a_tied_base_that_the_run_untied(tmp_path, moved, answer):
    base = torch.randn(OLD, 4)
    head = torch.cat([base, torch.randn(NEW - OLD, 4)])
    table = head.clone()
    if moved is not None:
        table[moved] += 1
    before, after = saved(tmp_path / "base", base), saved(tmp_path / "stage1", table, head)
    assert frozen_rows_unchanged(before, after, STAGES[1]) == answer


def test_a_head_that_moved_is_told_where_the_base_was_tied(tmp_path):
    base = torch.randn(OLD, 4)
    before, after = saved(tmp_path / "base", base), saved(tmp_path / "stage1", base, base + 1)
    assert frozen_rows_unchanged(before, after, STAGES[1]) == "NO"


def test_weights_that_were_not_kept_are_no_proof(tmp_path):
    before = saved(tmp_path / "base", torch.randn(OLD, 4))
    assert frozen_rows_unchanged(before, tmp_path / "nothing", STAGES[1]) == "?"


SAME = {"input_embeddings": "aa", "internal_layers": "bb"}


@pytest.mark.parametrize(
    "before, after, moved, answer",
    [
        (SAME, SAME, {}, "yes, by its record"),
        (SAME, {**SAME, "input_embeddings": "cc"}, {}, "NO, by its record"),
        (SAME, {"internal_layers": "bb"}, {}, "NO, by its record"),
        (SAME, SAME, {"input_embeddings": [3]}, "NO, by its record"),
        (
            {"internal_layers": "bb"},
            {"internal_layers": "bb"},
            {},
            "?",
        ),  # no rows were frozen, so none are proven
        ({}, {}, {}, "?"),
    ],
)
def test_a_record_tells_of_rows_whose_weights_were_not_kept(tmp_path, before, after, moved, answer):
    record = {"fingerprint_before": before, "fingerprint_after": after, "moved": moved, "weights": {}}
    (tmp_path / "eeve_stage.json").write_text(json.dumps(record))
    assert proven_by_record(tmp_path) == answer


def test_without_a_record_nothing_is_proven(tmp_path):
    assert proven_by_record(tmp_path) == "?"


@pytest.mark.parametrize("moved, answer", [(None, "yes"), (0.5, "?")])
def test_rows_saved_in_another_type_are_compared_as_the_stage_read_them(tmp_path, moved, answer):
    base = torch.randn(OLD, 4)
    table = base.to(torch.bfloat16) + (moved or 0)
    before = saved(tmp_path / "base", base, base.clone())
    after = saved(tmp_path / "stage1", table, table.clone())
    assert frozen_rows_unchanged(before, after, STAGES[1]) == answer
