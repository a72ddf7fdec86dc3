"""What the chain makes of a command's output: its progress, and why it failed."""

from __future__ import annotations

import pytest

from eeve_axolotl.pipeline import chain, launch
from eeve_axolotl.pipeline.progress import Progress

# What the launchers print last says only that a process of theirs failed.
ACCELERATE = """Traceback (most recent call last):
  File "train.py", line 3, in <module>
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
Traceback (most recent call last):
  File "launch.py", line 1200, in simple_launcher
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)
subprocess.CalledProcessError: Command '['python', '-m', 'axolotl.cli.train']' returned non-zero exit status 1.
"""
TORCHRUN = """[rank3]: Traceback (most recent call last):
[rank3]:   File "train.py", line 3, in <module>
[rank3]: ValueError: a batch is empty
E1124 20:00:00.000000 17 torch/distributed/elastic/multiprocessing/api.py:874] failed (exitcode: 1) local_rank: 3
Traceback (most recent call last):
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
axolotl.cli.train FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
============================================================
"""


@pytest.mark.parametrize("output, why", [
    (ACCELERATE, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
    (TORCHRUN, "[rank3]: ValueError: a batch is empty"),
    ("eeve_axolotl: remove `adapter`\n" + ACCELERATE, "eeve_axolotl: remove `adapter`"),
    ("Error: ./text.jsonl does not exist\n", "Error: ./text.jsonl does not exist"),
    ("loading\nkilled\n\n", "killed"),
    ("", "it printed nothing"),
])  # fmt: skip
def test_a_failed_commands_own_error_is_told(tmp_path, output, why):
    log = tmp_path / "train.log"
    log.write_text(output)
    assert chain._why(log) == why


def test_progress_counts_steps_as_the_log_does(tmp_path, capsys):
    """Not every step is logged, and a resumed run does not begin at the first."""
    lines = [
        f"{{'loss': '{3 - step / 100}', 'eeve/stage': '2', 'eeve/step': '{step}'}}\n" for step in (60, 70, 80)
    ]
    with Progress([task := chain.Task("train", "stage 2", False, [], steps=100)]) as progress:
        progress.task(task)
        launch._copy(lines, tmp_path / "log", progress.step)
        progress.step(0.5, None)
    printed = capsys.readouterr().err
    assert "step 60/100  loss 2.400" in printed and "step 80/100  loss 2.200" in printed
    assert "step 81" not in printed  # every tenth of the whole is enough for a log
    assert (tmp_path / "log").read_text() == "".join(lines)
