"""A stage begins from what `axolotl eeve start` wrote: no row is set anew, and frozen rows are those of the start."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL
from tests.e2e.helpers import axolotl, write_recipe
from tests.test_calibration import ground  # noqa: F401  a fixture

pytestmark = pytest.mark.e2e


def test_stage_1_trains_from_a_started_model(ground):  # noqa: F811
    arguments = "--tokenizer tokenizer --text text.jsonl --tokens 2000 --output started".split()
    done = axolotl(ground, "eeve", "start", "./base", *arguments)
    assert done.returncode == 0 and "give it to stage 1 as base_model" in done.stdout, done.stdout[-2000:]
    done = axolotl(ground, "train", write_recipe(ground, 1, "./started"), "--launcher", "python")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "initialised no rows: the checkpoint has all" in done.stdout
    before, after = (load_file(ground / each / "model.safetensors") for each in ("started", "stage1"))
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    name = "model.embed_tokens.weight"
    assert torch.equal(before[name][:SMALL], after[name][:SMALL])
    assert not torch.equal(before[name][SMALL:], after[name][SMALL:])
    record = json.loads((ground / "stage1" / "eeve_stage.json").read_text())
    assert record["initialised"] is None and record["base_vocab_size"] == SMALL
