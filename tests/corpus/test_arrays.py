"""Columns made of memory and read from it hold what Arrow's own ways would have, and leave pandas alone."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from eeve_axolotl.corpus.arrays import array_of, lists_of, numpy_of, texts_in
from eeve_axolotl.corpus.store import DOCUMENTS, Writer, records
from tests.conftest import ROOT
from tests.corpus.conftest import make_settings

TEXTS = ["", "가나다", "a\x00b", "😀 e\u0301", "", "\n"]


@pytest.mark.parametrize("texts", [TEXTS, [], [""]])
def test_texts_are_those_of_arrow(texts):
    column = array_of(texts, pa.string())
    column.validate(full=True)
    assert column.equals(pa.array(texts, pa.string()))
    assert array_of([text.encode() for text in texts], pa.string()).equals(column)
    assert texts_in(column) == texts
    assert texts_in(column[1:4]) == texts[1:4]


def test_a_text_that_utf8_cannot_spell_is_refused():
    with pytest.raises(UnicodeEncodeError):
        array_of(["\ud800"], pa.string())


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.float64(), pa.bool_()])
def test_numbers_are_those_of_arrow(kind):
    numbers = [1, 0, 1, 1, 0, 0, 1, 0, 1, 1]
    values = [bool(n) for n in numbers] if kind == pa.bool_() else numbers
    column = array_of(values, kind)
    column.validate(full=True)
    assert column.equals(pa.array(values, kind))
    assert array_of(np.array(values), kind).equals(column)
    assert numpy_of(column[3:9]).tolist() == values[3:9]
    assert numpy_of(pa.chunked_array([column[:2], column[5:]])).tolist() == values[:2] + values[5:]
    assert numpy_of(pa.chunked_array([], kind)).tolist() == []


def test_a_number_that_is_too_large_is_refused():
    with pytest.raises(OverflowError):
        array_of([300], pa.int8())


def test_lists_are_those_of_arrow():
    column = lists_of(np.array([0, 2, 2, 3]), np.array([7, 8, 9], np.int32), pa.list_(pa.int32()))
    column.validate(full=True)
    assert column.to_pylist() == [[7, 8], [], [9]]


def test_a_row_may_bring_its_text_in_bytes(tmp_path):
    row = {"group": 0, "origin": "x:1", "key": 2**64 - 1, "bytes": 3}
    with Writer(tmp_path / "d.parquet", DOCUMENTS) as file:
        file.write({**row, "text": "가"})
        file.write({**row, "text": "가".encode()})
    assert list(records(tmp_path / "d.parquet")) == [{**row, "text": "가"}] * 2


def test_a_corpus_is_made_without_pandas(sources, tokenizer_directory, tmp_path):
    settings = make_settings(sources, tokenizer_directory, tmp_path).model_dump_json()
    program = (
        "import sys\n"
        "from eeve_axolotl.corpus.build import build\n"
        "from eeve_axolotl.corpus.settings import CorpusSettings\n"
        "print(build(CorpusSettings.model_validate_json(sys.argv[1])))\n"
        "assert 'pandas' not in sys.modules\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, settings], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
