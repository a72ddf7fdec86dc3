"""Every writer of ours, refused by the disk at its changes: the old or the whole new is there, and a rerun ends as ever."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from eeve_axolotl import files, recipes, report
from eeve_axolotl.cli import told_plainly
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.settings import EvaluationSettings
from eeve_axolotl.pipeline import prepared
from eeve_axolotl.pipeline.runs import Run, claim
from eeve_axolotl.records import is_ours
from eeve_axolotl.tokenizer import build as building
from eeve_axolotl.tokenizer.counting.parts import Mark, resume
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.faults.grounds import Evaluating, chain, hashes, plant, unharmed, write_ground
from tests.faults.inject import Fault, armed
from tests.report import pipeline as made_up

EVALUATE = EvaluationSettings(texts={"Korean": "text.jsonl"})
TRIED = 12  # changes of a writer, evenly spaced; each is refused in one of these ways
REFUSALS = [errno.ENOSPC, errno.EACCES, errno.ENOTDIR, errno.EROFS, errno.EDQUOT]


def file() -> None:
    files.write_json(Path("place/figures.json"), {"new": 1})


def directory() -> None:
    with files.replacing(Path("place/made"), is_ours) as new:
        (new / "config.json").write_text("new")
        (new / "eeve_tokenizer.json").write_text("new")


def copied_recipes() -> None:
    recipes.copy("place/recipes", "demo", overwrite=True)


def prepared_place() -> None:
    place = Path("place/prepared/eeve-0")
    prepared.make_ready(place, Path("pipeline"))


def chain_file() -> None:
    Path("place").mkdir(exist_ok=True)
    claim(Path("place"), [Run.read("stage3.yml")], "base", {})


def counts() -> None:
    resume(Path("place"), [])
    Mark("part", "a", 1, 2, ()).write(Path("place"))


def workplace() -> None:
    settings = TokenizerSettings(base="base", output="place/new", corpus=[{"path": "text.jsonl"}])
    with building._work(settings, Path("place/new")) as work:
        (work / "words").mkdir(exist_ok=True)


def whole_chain() -> None:
    chain(Path(), Evaluating(EVALUATE), evaluate=EVALUATE).run()


def whole_report() -> None:
    report.write("made/output")


WRITERS: dict[Callable[[], object], str] = {  # what writes, and where
    file: "place", directory: "place", copied_recipes: "place", prepared_place: "place", chain_file: "place",
    counts: "place", workplace: "place", whole_chain: ".", whole_report: "made/output",
}  # fmt: skip
SLOW = (whole_chain, whole_report)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eeve_axolotl.report.plots.draw", lambda pipeline, folder: {})
    write_ground(tmp_path)
    made_up.make(tmp_path / "made")
    Path("place/mine").mkdir(parents=True)
    return tmp_path


def state(place: Path) -> dict[str, str]:
    """What is there, but for logs and locks."""
    return {
        name: each for name, each in hashes(place).items() if not name.endswith((".log", ".lock", "lock"))
    }


@pytest.mark.parametrize("writer", [
    pytest.param(each, marks=[pytest.mark.slow] if each in SLOW else [], id=each.__name__) for each in WRITERS
])  # fmt: skip
@pytest.mark.parametrize("lasts", [False, True], ids=["once", "from there on"])
def test_what_the_disk_refuses_is_told_and_leaves_the_old_or_the_whole_new(here, capsys, writer, lasts):
    planted = {f"place/mine/{name}": each for name, each in plant(here / "place/mine").items()}
    with armed(here, Fault()) as counted:
        writer()
    assert counted.changes
    place = here / WRITERS[writer]
    expected = state(place)
    for at in range(1, counted.changes + 1, 1 + counted.changes // TRIED):
        code = REFUSALS[at % len(REFUSALS)]
        _again(here, writer)
        ended = 0
        with armed(here, Fault(at=at, error=code, lasts=lasts)):
            try:
                told_plainly(writer)()
            except SystemExit as error:
                ended = error.code
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
        assert ended in (0, 1) and len(said) == ended, (at, code, said)
        assert unharmed(here, planted)
        writer()
        assert state(place) == expected, (at, errno.errorcode[code])


def _again(here: Path, writer: Callable) -> None:
    """The ground before the writer ran for the first time, or after: both are."""
    made = {"whole_chain": ("pipeline", "out3", "prepared"), "whole_report": ("made/output/report",)}
    if writer.__name__ in made:
        for name in made[writer.__name__]:
            shutil.rmtree(here / name, ignore_errors=True)


def test_what_is_no_refusal_of_the_disk_is_a_mistake_of_ours_and_not_hidden(here):
    @told_plainly
    def broken() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError):
        broken()
    with pytest.raises(EEVEError):
        files.read_json(here / "none.json")


def test_what_the_disk_refuses_to_a_library_in_rust_is_told(here, capsys):
    with pytest.raises(SystemExit):
        told_plainly(lambda: tokenizers.Tokenizer(tokenizers.models.BPE()).save("/proc/tokenizer.json"))()
    assert "Error: No such file or directory; make it possible" in capsys.readouterr().err
