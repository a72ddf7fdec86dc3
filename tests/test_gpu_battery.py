"""The battery for a GPU, rehearsed as on a bare machine: without Axolotl, bitsandbytes and what only they bring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import PARTS, main
from tests.conftest import ROOT

# Read by Python as it starts: finds nothing of what a bare machine lacks.
SITE = """
import importlib.machinery, sys

LACKING = {
    "axolotl", "bitsandbytes", "cut_cross_entropy", "datasets", "deepspeed", "duckdb", "flash_attn", "liger_kernel", "numba",
    "pandas", "pyarrow", "pydantic", "schedulefree", "scipy", "sentencepiece", "sklearn", "torchao",
}

class Bare(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in LACKING else super().find_spec(name, path, target)

sys.meta_path[:] = [Bare if each is importlib.machinery.PathFinder else each for each in sys.meta_path]
"""
SCRIPT = ROOT / "benchmarks" / "gpu" / "run.sh"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE)
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(site),
        "EEVE_GPU_RESULTS": str(folder / "results"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=600
    )


def lines(folder: Path) -> dict[str, list[dict]]:
    return {
        part: [json.loads(line) for line in (folder / "results" / f"{part}.jsonl").read_text().splitlines()]
        for part in PARTS
    }


@pytest.mark.slow
def test_a_bare_machine_makes_every_figure_that_it_can_and_says_why_not(tmp_path):
    done = run(tmp_path, "--rehearse")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = lines(tmp_path)
    everything = [line for part in found.values() for line in part]
    assert all(
        line["rehearsal"] and line["card"] == "CPU" and line["versions"]["torch"] for line in everything
    )
    assert all(line["commit"] and ("found" in line) != ("why" in line) for line in everything)

    stages = {line["figure"]: line for line in found["stages"]}
    for number in range(1, 6):
        assert stages[f"stage {number}"]["found"]["tokens_per_second"] > 0
        assert "axolotl" not in stages[f"stage {number}"]["found"]
    for number in (6, 7):
        assert "bitsandbytes is not installed" in stages[f"stage {number}"]["why"]
    assert {line["figure"].split(", ")[1] for line in found["head"] if "found" in line} == {
        "chunked",
        "plain",
        "rows",
    }
    assert all(
        line["found"]["gradient_error"] < 1e-4
        for line in found["head"]
        if "found" in line and "plain" not in line["figure"]
    )
    assert len({line["figure"] for line in found["memory"] if "found" in line}) == 5
    fp8 = {line["figure"]: line["found"] for line in found["fp8"]}  # all of them, emulated
    assert len(fp8) == 8 + 3 and all(each["emulated"] for each in fp8.values())
    for stage in (1, 3, 5):
        each = fp8[f"stage {stage}"]
        assert each["first_loss"]["fp8"] == pytest.approx(each["first_loss"]["bf16"], rel=0.005)
        assert each["peak_bytes"]["fp8"] < each["peak_bytes"]["bf16"]
        assert each["planned_bytes"]["fp8"] == pytest.approx(each["peak_bytes"]["fp8"], rel=0.1)
    assert all(0 < each["relative_error"] < 0.06 for name, each in fp8.items() if "stage" not in name)
    moved = [line["found"] for line in found["optimizers"] if "found" in line]
    assert len(moved) == 6
    assert all(each["frozen_rows_moved"] == 0 and each["trained_rows_moved"] > 0 for each in moved)
    assert ["why" in line for line in found["ablation"]] == [True]

    # A figure that is there is not made again; a line that was cut off is no figure, and no other line is lost to it.
    path = tmp_path / "results" / "memory.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[1:]) + whole[0][:40])
    again = run(tmp_path, "memory", "--rehearse")
    assert again.returncode == 0, again.stderr[-3000:]
    after = path.read_text().splitlines(keepends=True)
    assert after[: len(whole) - 1] == whole[1:]
    assert [json.loads(line)["figure"] for line in after[len(whole) :]] == ["stage 1"]


def test_without_a_gpu_it_says_how_to_rehearse(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for arguments, said in ((["memory"], "--rehearse"), (["moon"], "no part is called moon")):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
