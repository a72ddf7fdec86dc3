"""Axolotl's cache of prepared datasets: a place in it that is this chain's alone, one for each content of the text.

Axolotl finds an entry by the settings, not by the text, and takes a half-written one for whole. So each run of a chain
is given a directory below its `dataset_prepared_path` whose name says what the text and the tokenizer were. Nothing
outside such a directory is ever removed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eeve_axolotl import inputs
from eeve_axolotl.files import read_json_if_there, write_json
from eeve_axolotl.pipeline.runs import Run

MARKER = "eeve_prepared.json"  # in such a directory: whose it is
DATASETS_CACHE = "HF_DATASETS_CACHE"
OPTION = "--dataset-prepared-path"
_ENTRY = re.compile("[0-9a-f]{32}")  # how Axolotl names one
_WHOLE = ("state.json", "dataset_dict.json")  # `datasets` writes one of them last


def place(run: Run, chain: Path) -> Path:
    """Where `run` of the chain whose output is `chain` keeps prepared datasets, as its text is now."""
    parent = Path(run.cfg.get("dataset_prepared_path") or "last_run_prepared")
    return parent / f"eeve-{inputs.digest(str(chain.absolute()), run.texts(), run.tokenizer())}"


@contextmanager
def datasets_of_its_own(run: Run, directory: Path) -> Iterator[None]:
    """While the block runs, processes that are started keep what `datasets` makes of local text beside the prepared ones.

    Its own cache knows a file by its name and time alone, and would serve the text that a file of the same time had.
    """
    before = os.environ.get(DATASETS_CACHE)
    if any(not each.startswith(inputs.REVISION) for each in run.texts().values()):
        place = Path(before) / directory.name if before else directory / "datasets"
        os.environ[DATASETS_CACHE] = str(place.absolute())
    try:
        yield
    finally:
        os.environ.pop(DATASETS_CACHE, None)
        os.environ.update({DATASETS_CACHE: before} if before is not None else {})


def make_ready(directory: Path, chain: Path) -> None:
    """Make the directory, and remove from it what a killed run left half-written."""
    owner = {"chain": str(chain.absolute())}
    directory.mkdir(parents=True, exist_ok=True)
    if read_json_if_there(directory / MARKER, f"remove {directory}, in which Axolotl prepares text") != owner:
        write_json(directory / MARKER, owner)
        return  # nothing in it can be ours
    for entry in directory.iterdir():
        if _ENTRY.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            if not any((entry / name).is_file() for name in _WHOLE):
                shutil.rmtree(entry)
