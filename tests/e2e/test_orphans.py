"""A chain that is killed while a real launcher trains leaves no process behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from eeve_axolotl.pipeline import keeper
from tests.conftest import SMALL, extended, tiny_llama
from tests.e2e.commands import ENVIRONMENT
from tests.e2e.helpers import AXOLOTL, write_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_a_killed_chains_launcher_and_training_die_with_it(
    tmp_path, small_tokenizer_directory, small_tokenizer, launcher
):
    shutil.copytree(small_tokenizer_directory, tmp_path / "base")
    tiny_llama(SMALL, hidden_size=8).save_pretrained(tmp_path / "base")
    extended(small_tokenizer, ["안녕", "▁학교"]).save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "text.jsonl").write_text('{"text": "안녕, 학교."}\n' * 64, encoding="utf-8")
    recipe = write_recipe(tmp_path, 3, "./base", max_steps=1_000_000, warmup_steps=0)
    pipeline = {"output": "./pipeline", "runs": [recipe], "launcher": launcher}
    (tmp_path / "pipeline.yml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    log = open(tmp_path / "log", "w")
    chain = subprocess.Popen(
        [AXOLOTL, "eeve", "run", "pipeline.yml"],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        stdout=log,
        stderr=log,
    )
    prefix = f"{tmp_path / 'pipeline' / 'logs'}/"
    try:
        while not any(path.stat().st_size for path in (tmp_path / "pipeline/logs").glob("*.steps.jsonl")):
            assert chain.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.2)
        assert len(keeper.processes_of(prefix)) >= 2  # the launcher and what it started
        chain.send_signal(signal.SIGKILL)
        chain.wait()
        for _ in range(600):
            if not keeper.processes_of(prefix):
                return
            time.sleep(0.1)
        pytest.fail(f"still there: {keeper.processes_of(prefix)}")
    finally:
        chain.kill()
        for process in keeper.processes_of(prefix):
            os.kill(process, signal.SIGKILL)
