"""Liger's fused loss with frozen rows: right where a gradient passes the head, and refused where none does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eeve_axolotl import checks
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.stages import STAGES
from tests.conftest import ROOT, tiny_llama

KEY = "liger_fused_linear_cross_entropy"


def test_it_trains_the_same_rows_where_its_input_needs_a_gradient_and_is_refused_elsewhere():
    pytest.importorskip("liger_kernel")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("liger.py"))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    for number, stage in STAGES.items():
        if number > 5:
            checks.check_config({KEY: True, "adapter": "qlora"}, stage)
        elif stage.backward_through_layers:
            checks.check_config({KEY: True}, stage)
            assert found[str(number)]["difference"] < 1e-6 < found[str(number)]["largest"]
        else:
            # The reason for the refusal: nothing would train. Where this fails, Liger has changed: drop the refusal.
            assert found[str(number)]["largest"] == 0
            with pytest.raises(EEVEError, match=f"no gradient in stage {number}, .*; remove it"):
                checks.check_config({KEY: True}, stage)


def test_a_head_with_a_bias_is_refused_for_liger_reads_its_matrix_alone():
    model = tiny_llama(60)
    checks.check_head({KEY: True}, model)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(60))
    checks.check_head({}, model)
    with pytest.raises(EEVEError, match=f"`{KEY}` would leave out the bias of LlamaForCausalLM's head"):
        checks.check_head({KEY: True}, model)
