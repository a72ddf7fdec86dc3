"""Hugging Face datasets as sources: by directory here, in FineWeb-2's layout; the hub's are read by the same call."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eeve_axolotl.corpus import build as corpus
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import Source
from tests.corpus.conftest import Maker, make_settings, texts

CARD = """---
configs:
- config_name: kor_Hang
  data_files:
  - split: train
    path: data/kor_Hang/train/*
---
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> tuple[Path, list[str]]:
    """A dataset of two files in the configuration kor_Hang, and its texts in order."""
    directory, maker = tmp_path_factory.mktemp("fineweb"), Maker(seed=21)
    documents = [maker.document("ko") for _ in range(90)]
    files = directory / "data" / "kor_Hang" / "train"
    files.mkdir(parents=True)
    for number, part in enumerate((documents[:50], documents[50:])):
        table = pa.table({"text": part, "language_score": [0.9] * len(part)})
        pq.write_table(table, files / f"{number:05d}.parquet")
    (directory / "README.md").write_text(CARD)
    return directory, documents


def source(directory: Path, **keys) -> Source:
    return Source(path=str(directory), **{"name": "kor_Hang", "split": "train", **keys})


def read(one: Source) -> list[str]:
    return [document.text for piece in one.shards() for document in piece.documents()]


def test_a_dataset_is_read_file_by_file(dataset):
    directory, documents = dataset
    assert len(source(directory).shards()) == 2
    assert read(source(directory)) == documents


def test_a_limit_of_documents_is_shared_out_over_the_files(dataset):
    directory, documents = dataset
    assert read(source(directory, documents=20)) == documents[:10] + documents[50:60]


def test_a_dataset_gives_the_same_corpus_as_its_files(dataset, tokenizer_directory, tmp_path):
    directory, _ = dataset
    made = []
    for name, keys in {
        "dataset": {"path": str(directory), "name": "kor_Hang", "split": "train"},
        "files": {"path": f"{directory}/data/kor_Hang/train/*.parquet"},
    }.items():
        (tmp_path / name).mkdir()
        mix = {"korean": {"share": 1, "language": "ko", "rule": "coverage", "sources": [keys]}}
        settings = make_settings(directory, tokenizer_directory, tmp_path / name, mix=mix)
        output = corpus.build(settings)
        made.append((texts(output, "train"), texts(output, "held_out")))
    assert made[0] == made[1] and min(map(len, made[0])) > 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": "valid"}, "cannot be read .*valid.*correct path, name or split"),
        ({"name": "kor_Hani"}, "cannot be read .*kor_Hani.*correct path, name or split"),
        (
            {"columns": ["body"]},
            "kor_Hang:train:0, line 1: no column 'body'; there are 'text'.*set `columns`",
        ),
    ],
)
def test_what_a_dataset_lacks_is_named(dataset, keys, message):
    with pytest.raises(EEVEError, match=message):
        read(source(dataset[0], **keys))


def test_a_stream_that_breaks_off_is_named_with_its_row(dataset, tmp_path):
    files = tmp_path / "data" / "kor_Hang" / "train"
    files.mkdir(parents=True)
    (tmp_path / "README.md").write_text(CARD)
    whole = (dataset[0] / "data" / "kor_Hang" / "train" / "00000.parquet").read_bytes()
    broken = bytearray(whole)
    broken[8 : len(whole) // 2] = bytes(len(whole) // 2 - 8)  # head and footer are whole, the pages are not
    (files / "00000.parquet").write_bytes(broken)
    with pytest.raises(EEVEError, match="kor_Hang:train:0: broke off after row 0"):
        read(source(tmp_path))


def test_keys_of_a_dataset_without_a_split_are_refused():
    with pytest.raises(ValueError, match="give `split` too"):
        Source(path="HuggingFaceFW/fineweb-2", name="kor_Hang")
