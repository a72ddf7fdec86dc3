"""What a resumed stage takes for a checkpoint."""

from pathlib import Path

from eeve_axolotl.records import WHOLE, last_whole_checkpoint


def checkpoint(directory: Path, step: int, whole: bool) -> str:
    folder = directory / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text("{}")
    if whole:
        (folder / WHOLE).touch()
    return str(folder)


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    checkpoint(tmp_path, 9, whole=True)
    last = checkpoint(tmp_path, 10, whole=True)
    checkpoint(tmp_path, 11, whole=False)
    assert last_whole_checkpoint(tmp_path) == last


def test_without_a_whole_checkpoint_a_stage_begins_at_its_first_step(tmp_path):
    assert last_whole_checkpoint(tmp_path / "nothing") is None
    checkpoint(tmp_path, 5, whole=False)
    assert last_whole_checkpoint(tmp_path) is None
