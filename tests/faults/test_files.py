"""No file that we did not write is removed or replaced, and links and mount points stay what they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eeve_axolotl import files
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import RECORD, TOKENIZER_MANIFEST, WORK, is_ours
from eeve_axolotl.tokenizer import build as building
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.faults.grounds import Launcher, chain, hashes, made_of, plant, unharmed, write_ground


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("prepared", ["mydata", ".", "out3", None])
def test_a_directory_that_axolotl_is_to_cache_in_keeps_all_that_is_there(here, prepared):
    write_ground(here, dataset_prepared_path=prepared)
    place = here / (prepared or "last_run_prepared")
    place.mkdir(exist_ok=True)
    planted = plant(place)
    half = place / ("1" * 32)  # another run's, half prepared
    half.mkdir()
    (half / "data-00000-of-00002.arrow").write_text("theirs")
    planted |= {f"{half.name}/{name}": each for name, each in hashes(half).items()}
    chain(here).run()
    assert unharmed(place, planted)


def test_a_dataset_that_a_killed_run_left_half_prepared_is_prepared_again(here):
    write_ground(here)

    def killed(arguments, log, on_step):
        cache = Path(arguments[arguments.index("--dataset-prepared-path") + 1])
        (cache / ("0" * 32)).mkdir()
        (cache / ("0" * 32) / "data-00000-of-00001.arrow").write_text("ha")
        (cache / "mine").mkdir()
        return -9

    with pytest.raises(EEVEError, match="was killed"):
        chain(here, killed).run()
    chain(here).run()
    assert made_of(here / "out3") == 'weights of {"text": "one"}\n'
    assert list(here.glob("prepared/*/mine"))


def test_a_cache_of_the_users_own_choice_is_left_to_them(here):
    write_ground(here)
    launcher = Launcher()
    chain(here, launcher, train_args=["--dataset-prepared-path", "own"]).run()
    assert launcher.commands[0].count("--dataset-prepared-path") == 1 and (here / "own").is_dir()


def test_a_merge_keeps_what_it_did_not_write(here):
    write_ground(here, stages=(6,))
    chain(here, runs=["stage6.yml"]).run()
    merged = here / "out6" / "merged"
    planted = plant(merged)
    (merged / "README.md").write_text("# My model\n")
    planted["README.md"] = hashes(merged)["README.md"]
    (merged / RECORD).unlink()  # as after a kill
    chain(here, runs=["stage6.yml"]).run()
    assert unharmed(merged, planted) and (merged / RECORD).is_file()
    chain(here, runs=["stage6.yml"]).run(begin="6")
    assert unharmed(merged, planted) and (merged / RECORD).is_file()


def tokenizer(**keys) -> TokenizerSettings:
    corpus = [{"path": "text.jsonl"}]
    return TokenizerSettings(**{"base": "base", "output": "new", "corpus": corpus, **keys})


def test_a_directory_that_is_no_tokenizer_of_ours_is_not_overwritten(here):
    planted = plant(here / "thesis")
    with pytest.raises(EEVEError, match="not a tokenizer of ours"):
        building.build(tokenizer(output="thesis", overwrite=True))
    assert hashes(here / "thesis") == planted


def test_a_work_directory_keeps_all_but_our_own_counts(here):
    for name in ("words", "marks"):
        plant(here / "mine" / name)
    planted = hashes(here / "mine")
    with building._work(tokenizer(work_directory="mine"), here / "new") as work:
        assert work == Path("mine", WORK)
        (work / "words").mkdir()
    assert hashes(here / "mine") == planted and not work.exists()
    plant(here / "mine" / WORK)
    with pytest.raises(EEVEError, match="not ours"):
        building.build(tokenizer(work_directory="mine", base="base"))


def test_two_builds_in_one_work_directory_are_told_apart(here):
    with building._work(tokenizer(), here / "new"):
        with pytest.raises(EEVEError, match="another `axolotl eeve tokenizer` is at work"):
            building.build(tokenizer())


def put(directory: Path, content: str) -> None:
    with files.replacing(directory, is_ours) as new:
        (new / "config.json").write_text(content)
        (new / TOKENIZER_MANIFEST).write_text(content)


def test_a_linked_output_stays_a_link(here):
    (here / "large-disk").mkdir()
    (here / "out").symlink_to("large-disk/out")
    for content in ("1", "2", "3"):
        put(here / "out", content)
        assert (here / "out").is_symlink() and (here / "large-disk/out/config.json").read_text() == content
    (here / "large-disk/own.json").write_text("0")
    (here / "figures.json").symlink_to("large-disk/own.json")
    files.write_json(here / "figures.json", 1)
    assert (here / "figures.json").is_symlink() and (here / "large-disk/own.json").read_text() == "1\n"


def test_files_of_others_move_into_the_successor(here):
    put(here / "out", "1")
    planted = plant(here / "out")
    kept = {name: each for name, each in planted.items() if name not in ("config.json", TOKENIZER_MANIFEST)}
    put(here / "out", "2")
    assert unharmed(here / "out", kept) and (here / "out/config.json").read_text() == "2"


@pytest.mark.parametrize("moment", range(1, 6))
def test_a_kill_at_any_moment_of_a_replacement_loses_nothing(here, moment, monkeypatch):
    put(here / "out", "1")
    kept = plant(here / "out")
    kept = {name: each for name, each in kept.items() if name not in ("config.json", TOKENIZER_MANIFEST)}
    rename, renames = Path.rename, 0

    def until_killed(path, target):
        nonlocal renames
        renames += 1
        if renames == moment:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", until_killed)
        with pytest.raises(KeyboardInterrupt):
            put(here / "out", "2")
    put(here / "out", "3")
    assert unharmed(here / "out", kept) and (here / "out/config.json").read_text() == "3"


MOUNTED = """
import sys
from pathlib import Path
from tests.faults.test_files import put, plant, unharmed
out = Path(sys.argv[1])
put(out, "1")
kept = {name: each for name, each in plant(out).items() if not name.startswith(("config", "eeve_"))}
put(out, "2")
assert (out / "config.json").read_text() == "2" and unharmed(out, kept), list(out.iterdir())
assert out.is_mount() or sys.argv[2] == "--bind"
print("kept")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts in a namespace of its own")
@pytest.mark.parametrize("kind", ["-t tmpfs none", "--bind elsewhere"])
def test_a_mount_point_gets_a_new_content(here, kind):
    (here / "out").mkdir()
    (here / "elsewhere").mkdir()
    mount = f"mount {kind} out"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    command = f'{mount} && exec "$0" -c "$1" out {kind.split()[0]}'
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, MOUNTED], capture_output=True, text=True
    )
    assert run.stdout == "kept\n", run.stderr


@pytest.mark.parametrize("output", ["", ".", "text.jsonl", "text.jsonl/out", "loop", "loop/out", "/proc/out"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(here, output):
    write_ground(here)
    (here / "loop").symlink_to("loop")
    before = hashes(here)
    with pytest.raises(EEVEError, match="output: "):
        building.build(tokenizer(output=output))
    with pytest.raises(EEVEError, match="output: "):
        settings = chain(here).settings.model_copy(update={"output": output})
        type(chain(here))("pipeline.yml", settings, Launcher()).run()
    assert hashes(here) == before


def test_an_error_while_a_file_is_written_leaves_the_old_one_and_nothing_beside_it(here):
    files.write_json(here / "a.json", 1)
    with pytest.raises(OSError), files.writing(here / "a.json") as unfinished:
        unfinished.write_text("half")
        raise OSError(28, "No space left on device")
    assert [path.name for path in here.iterdir()] == ["a.json"] and (here / "a.json").read_text() == "1\n"
