"""No process outlives its chain, however the chain and the launcher end, and none is left waiting for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline import keeper, launch
from tests.faults.grounds import chain, write_ground

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

# As accelerate does, and as torchrun does, which starts its workers in sessions of their own.
LAUNCHERS = {
    "accelerate": "import subprocess, sys; subprocess.run([sys.executable, 'worker.py'])",
    "torchrun": "import subprocess, sys; "
    "subprocess.Popen([sys.executable, 'worker.py'], start_new_session=True).wait()",
}
WORKER = (
    "import os, time; open('worker.new', 'w').write(str(os.getpid())); os.rename('worker.new', 'worker'); "
    "time.sleep(100)"
)
CHAIN = (
    "import sys; from pathlib import Path; from eeve_axolotl.pipeline.launch import launch; "
    "sys.executable = sys.argv[1]; launch(['train'], Path('logs/log'), print)"
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(here: Path, launcher: str) -> tuple[subprocess.Popen, int]:
    """A chain whose launcher has started a worker; also the worker's number."""
    (here / "worker.py").write_text(WORKER)
    (here / "axolotl").write_text(f"#!{sys.executable}\n{LAUNCHERS[launcher]}\n")
    (here / "axolotl").chmod(0o755)
    (here / "python").symlink_to(sys.executable)
    (here / "logs").mkdir()
    started = subprocess.Popen([sys.executable, "-c", CHAIN, str(here / "python")])
    while not (here / "worker").is_file():
        assert started.poll() is None
        time.sleep(0.01)
    return started, int((here / "worker").read_text())


def alive(here: Path) -> list[int]:
    return keeper.processes_of(f"{here / 'logs'}/")


def check_nothing_is_left(here: Path) -> None:
    for _ in range(1000):
        if not alive(here):
            return
        time.sleep(0.01)
    pytest.fail(f"still there: {alive(here)}")


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_chains_workers_die_with_it(here, launcher, number):
    started, worker = begin(here, launcher)
    assert worker in alive(here)
    started.send_signal(number)
    started.wait()
    check_nothing_is_left(here)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_workers_die_when_what_stands_between_is_killed(here, launcher):
    started, worker = begin(here, launcher)
    for process in alive(here):
        if process != worker:
            os.kill(process, signal.SIGKILL)
    assert started.wait() == 0  # `launch` came back
    check_nothing_is_left(here)


def test_a_chain_does_not_begin_beside_an_orphan(here, monkeypatch):
    write_ground(here)
    monkeypatch.setattr(launch, "WAIT", 0.1)
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(100)"],
        env={**os.environ, keeper.VARIABLE: f"{here / 'pipeline/logs/stage3.steps.jsonl'}"},
    )
    try:
        while not keeper.processes_of(f"{here / 'pipeline/logs'}/"):
            time.sleep(0.01)
        with pytest.raises(EEVEError, match=f"still at work.*kill -9 {orphan.pid}"):
            chain(here).run()
    finally:
        orphan.kill()
        orphan.wait()
    chain(here).run()
    assert (here / "out3/eeve_stage.json").is_file()


FULL = """
import sys
from pathlib import Path
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline import launch
from tests.faults.grounds import chain
def command(arguments, log, on_step):
    Path(sys.argv[1], "axolotl").write_text("#!/bin/sh\\nhead -c 9000000 /dev/zero | tr '\\\\0' x || exit 1\\nexit 1\\n")
    Path(sys.argv[1], "axolotl").chmod(0o755)
    sys.executable = sys.argv[1] + "/python"
    return launch.launch(arguments, log, on_step)
try:
    chain(Path.cwd(), command).run()
except EEVEError as error:
    print(error)
"""


def test_a_full_disk_ends_the_run_with_a_sentence(here):
    write_ground(here)
    (here / "pipeline").mkdir()
    (here / "bin").mkdir()
    (here / "bin/python").symlink_to(sys.executable)
    mount = "mount -t tmpfs -o size=1m none pipeline"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        f'{mount} && exec "$0" -c "$1" "$2"',
        sys.executable,
        FULL,
        "bin",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "pipeline/logs is full; make room" in ended.stdout and "Traceback" not in ended.stderr


def test_steps_that_cannot_be_told_do_not_end_a_training(here, monkeypatch):
    from eeve_axolotl import progress

    monkeypatch.setenv(progress.VARIABLE, "/dev/full")
    progress.tell(progress.LoggedStep("2", 1, 50, 3.0, 4096))
    (here / "steps").write_bytes(b'{"stage": "2", "st\n{"stage": "2", "step": 1, "max_steps": null, "loss": 1.0, '
                                 b'"tokens_per_step": 8}\n')  # fmt: skip
    assert [each.step for each in progress.Reader(here / "steps").new()] == [1]
