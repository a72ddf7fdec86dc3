"""What the chain makes of a command: its progress, its log, and why it failed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from eeve_axolotl import progress
from eeve_axolotl.pipeline import launch
from eeve_axolotl.pipeline.display import Display
from eeve_axolotl.pipeline.tasks import Task
from eeve_axolotl.progress import LoggedStep, LongStep

TRAIN = Task("train", "stage 2: outputs/[x]", False, [], steps=100)

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
    assert launch.why(log) == why


def logged(step: int, loss: float | None = None) -> LoggedStep:
    return LoggedStep("2", step, 50, 3 - step / 100 if loss is None else loss, 4096)


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The file that a training process of the chain tells its steps in."""
    file = launch.steps_file(tmp_path / "train.log")
    monkeypatch.setenv(progress.VARIABLE, str(file))
    return file


def test_progress_counts_steps_as_the_trainer_does(steps, capsys):
    """Not every step is logged, and a resumed run does not begin at the first."""
    for number in (60, 70, 80):
        progress.tell(logged(number))
    with Display(total=1) as display:
        display.task(TRAIN)
        assert launch.watch(lambda: 0, steps, display.told) == 0
        display.told(logged(81))
    printed = capsys.readouterr().err
    assert "[ 1/1] stage 2: outputs/[x]\n" in printed
    assert "step 60/100  loss 2.400" in printed and "step 80/100  loss 2.200" in printed
    assert "step 81" not in printed  # every tenth of the whole is enough for a log


def test_on_a_terminal_progress_is_a_bar_and_leaves_only_the_task_and_its_time():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Display(total=1, console=console) as display:
        display.task(TRAIN)
        display.told(logged(7))
    assert " 7/100" in screen.getvalue() and "loss 2.930" in screen.getvalue()
    assert screen.getvalue().count("stage 2: outputs/[x]") == 1


def test_a_loss_that_is_no_number_is_told_as_such(steps, capsys):
    progress.tell(logged(10, loss=float("nan")))
    with Display(total=1) as display:
        display.task(TRAIN)
        launch.watch(lambda: 0, steps, display.told)
    assert "step 10/100  loss not finite" in capsys.readouterr().err


def shown(monkeypatch, stages: int, moments: list[tuple[int, float]], **keys) -> str:
    """What is shown where steps are told at moments, in seconds from the beginning."""
    now = [0.0]
    monkeypatch.setattr("eeve_axolotl.pipeline.display.time.monotonic", lambda: now[0])
    places = [SimpleNamespace(name=str(number)) for number in range(1, stages + 1)]
    task = replace(TRAIN, trains=SimpleNamespace(stages=places))
    screen = io.StringIO()
    with Display(total=1, console=Console(file=screen, width=200), **keys) as display:
        display.task(task)
        for step, now[0] in moments:
            display.told(logged(step))
    return screen.getvalue()


def test_how_quick_it_is_is_told_from_the_first_step_on_and_for_the_whole_chain(monkeypatch):
    # Loading took 100 seconds; then a step of 4,096 tokens takes two. 80 steps of this run are left, and 200 of others.
    said = shown(monkeypatch, 3, [(10, 100.0), (20, 120.0)], ahead=300, price_per_hour=36.0)
    first, second = [line for line in said.splitlines() if "step" in line]
    assert first.strip() == "step 10/100  loss 2.900  stage 2  cost 1.00"
    assert (
        second.strip()
        == "step 20/100  loss 2.800  stage 2  2,048 tokens/s  9 min 20 s of training left  cost 1.20"
    )


MAKING = Task("tokenizer", "extended tokenizer", False, ["eeve", "tokenizer", "t.yml"])


def test_a_long_step_that_trains_nothing_is_told_now_and_then_in_a_log(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("eeve_axolotl.pipeline.display.time.monotonic", lambda: now[0])
    screen = io.StringIO()
    with Display(total=2, console=Console(file=screen, width=200)) as display:
        display.told(LongStep("too early", None))  # nothing runs
        display.task(MAKING)
        for now[0] in range(100):
            display.told(LongStep(f"counting words: {now[0]} MB", None))
        display.task(TRAIN)
        display.told(logged(10))
    lines = [line.strip() for line in screen.getvalue().splitlines()]
    assert lines[1:5] == [*(f"counting words: {each} MB" for each in (30, 60, 90)), "99 s"]
    assert "step 10/100" in lines[6] and "early" not in screen.getvalue()


def test_on_a_terminal_a_long_step_is_a_bar_that_is_gone_when_it_is_done():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Display(total=2, console=console) as display:
        display.task(MAKING)
        for share in (None, 0.25, 2.0, None):
            display.told(LongStep(f"counting words: {share}", share))
            display._bar.refresh()
        display.task(TRAIN)
        display.told(logged(7))
    drawn = screen.getvalue()
    assert all(f"counting words: {share}" in drawn for share in (None, 0.25, 2.0)) and " 7/100" in drawn


def test_a_chains_process_tells_long_steps_and_training_steps_in_one_file(steps):
    said = [LongStep("가나: 1%", 0.01), logged(3), LongStep("later", None)]
    for each in said:
        progress.tell(each)
    heard = []
    assert launch.watch(lambda: 3, steps, heard.append) == 3
    assert heard == said


def test_what_is_not_known_is_not_told(monkeypatch):
    said = shown(monkeypatch, 1, [(10, 100.0), (20, 120.0)])
    assert "step 20/100  loss 2.800  2,048 tokens/s\n" in said
    assert "step 10/100  loss 2.900\n" in shown(
        monkeypatch, 1, [(10, 5.0), (10, 5.0)]
    )  # one moment is no pace


def test_a_line_that_is_half_written_is_read_when_it_is_whole(steps):
    reader = progress.Reader(steps)
    assert list(reader.new()) == []  # no file yet
    progress.tell(logged(1))
    progress.tell(logged(2))
    whole = steps.read_bytes()
    steps.write_bytes(whole[:-5])
    assert [each.step for each in reader.new()] == [1]
    steps.write_bytes(whole)
    assert list(reader.new()) == [logged(2)]
    assert list(reader.new()) == []


def test_steps_of_an_earlier_attempt_are_not_told_again(steps):
    progress.tell(logged(1))
    assert launch.steps_file(steps.with_name("train.log")) == steps and not steps.exists()


def test_without_a_chain_nothing_is_told(steps, monkeypatch):
    monkeypatch.delenv(progress.VARIABLE)
    progress.tell(logged(1))
    assert not steps.exists()


def test_a_command_of_ours_runs_with_its_output_in_the_log(tmp_path):
    log = tmp_path / "help.log"
    assert launch.launch(["eeve", "run", "--help"], log, lambda step: None) == 0
    assert "Run a whole pipeline" in log.read_text()
    assert launch.launch(["eeve", "report", str(tmp_path)], log, lambda step: None) == 1
    assert "is not the output of a pipeline" in launch.why(log)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a signal to the children of a process that died")
def test_a_command_does_not_outlive_the_chain(tmp_path):
    """A chain that is killed has no time to end what it started."""
    (tmp_path / "axolotl").write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    (tmp_path / "axolotl").chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    code = (
        "import sys; from pathlib import Path; from eeve_axolotl.pipeline.launch import launch; "
        "sys.executable = sys.argv[1] + '/python'; launch(['train'], Path(sys.argv[1], 'log'), print)"
    )
    chain = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    log = tmp_path / "log"
    while not (log.is_file() and log.read_text().endswith("\n")):
        assert chain.poll() is None
        time.sleep(0.01)
    command = int(log.read_text())
    chain.kill()
    chain.wait()
    for _ in range(500):
        if not os.path.exists(f"/proc/{command}") or " Z" in _status(command):
            break
        time.sleep(0.01)
    else:
        pytest.fail("the command is still there")


def _status(process: int) -> str:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read()
    except FileNotFoundError:
        return " Z"
