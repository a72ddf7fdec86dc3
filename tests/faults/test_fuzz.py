"""Every reader of records is given each of them wrong in many ways: it works, or says which file and what to do.

benchmarks/faults.py tries more of the ways.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.wrong import READERS, make, read_wrong, reports

TRIED = 12  # of the ways in which the inside of a record can be wrong, beside those of a whole file


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("fuzz")
    make(directory)
    return directory


@pytest.mark.parametrize("reader, file", [
    pytest.param(reader, file, id=f"{reader.__name__}-{file}", marks=[pytest.mark.slow] if reader is reports else [])
    for reader, file in READERS
])  # fmt: skip
def test_a_wrong_record_stops_with_a_sentence_that_names_it(ground, monkeypatch, reader, file):
    monkeypatch.chdir(ground)
    most = 1 if reader is reports else TRIED  # plots take their time
    badly = [(what, told) for what, well, told in read_wrong(reader, file, 0, most) if not well]
    assert not badly, "\n".join(map(str, badly[:5]))
