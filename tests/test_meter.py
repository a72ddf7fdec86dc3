"""How far a step is, on a terminal and elsewhere."""

import io
import logging
import time

import pytest
from rich.console import Console

from eeve_axolotl import progress
from eeve_axolotl.meter import Meter

LOG = logging.getLogger("axolotl.eeve.test")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("share, size, line", [
    (None, 0, "reading: 1:15 gone"),
    (None, 150_000_000, "reading: 150.0 MB, 2.0 MB/s, 1:15 gone"),
    (0.25, 150_000_000, "reading: 25%, 150.0 MB, 2.0 MB/s, 3:45 left"),
    (0.0, 0, "reading: 0%, 1:15 gone"),
    (0.01, 7_500_000, "reading: 1%, 7.5 MB, 0.1 MB/s, 2:03:45 left"),
    (1.5, 75_000_000, "reading: 100%, 75.0 MB, 1.0 MB/s, 0:00 left"),
])  # fmt: skip
def test_the_line_says_bytes_speed_and_time_left(share, size, line):
    clock = Clock()
    meter = Meter("reading", LOG, clock=clock)
    clock.now = 75
    meter.at(share, size)
    assert meter.line() == line
    assert Meter("reading", LOG, lambda: (share, size), clock=lambda: 0).line().startswith("reading")


def test_another_part_of_a_step_begins_anew():
    clock = Clock()
    meter = Meter("reading", LOG, clock=clock)
    meter.at(0.5, 1_000_000)
    clock.now = 10
    meter.then("merging")
    clock.now = 15
    assert meter.line() == "merging: 0:05 gone"


def until(happens) -> None:
    """Wait for another thread; a test that hangs has failed."""
    end = time.monotonic() + 30
    while not happens() and time.monotonic() < end:
        time.sleep(0.01)
    assert happens()


def test_where_there_is_no_terminal_lines_come_now_and_then_and_a_short_step_says_nothing(caplog):
    caplog.set_level("INFO")
    with Meter("short", LOG, console=Console(file=io.StringIO())):
        pass
    with Meter("long", LOG, lambda: (0.5, 3_000_000), every=0.01, console=Console(file=io.StringIO())):
        until(lambda: caplog.text.count("long: 50%, 3.0 MB") > 1)
    assert "short" not in caplog.text


def test_on_a_terminal_there_is_a_bar_and_no_line(caplog):
    caplog.set_level("INFO")
    drawn = io.StringIO()
    with Meter(
        "long", LOG, lambda: (0.5, 3_000_000), console=Console(file=drawn, force_terminal=True, width=120)
    ):
        until(lambda: "long: 50%, 3.0 MB" in drawn.getvalue() and "━" in drawn.getvalue())
    assert not caplog.text


def test_what_goes_wrong_in_the_step_comes_out():
    with pytest.raises(ZeroDivisionError), Meter("long", LOG):
        1 / 0  # noqa: B018


def test_texts_are_read_through():
    meter = Meter("reading", LOG)
    readings = []
    for text in meter.reading(["가", "ab"]):
        readings.append((text, meter.line().split(",")[0]))
    assert readings == [("가", "reading: 0:00 gone"), ("ab", "reading: 0.0 MB")]
    assert meter._reading == (None, 5)


def test_a_chain_that_started_the_step_is_told_how_far_it_is_and_its_log_now_and_then(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setattr("eeve_axolotl.meter._TOLD", 0.01)
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "told"))
    reader, told = progress.Reader(tmp_path / "told"), []

    def some_more() -> bool:
        told.extend(reader.new())
        return len(told) >= 3

    # On a terminal too: it is the chain's to draw on.
    console = Console(file=io.StringIO(), force_terminal=True)
    with Meter("reading", LOG, lambda: (0.25, 3_000_000), every=3600, console=console):
        until(some_more)
    assert told[0].share == 0.25 and told[0].line.startswith("reading: 25%, 3.0 MB")
    assert not caplog.messages and not console.file.getvalue()
    with Meter("reading", LOG, every=0, console=console):
        until(lambda: caplog.messages)
