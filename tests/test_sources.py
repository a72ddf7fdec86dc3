"""Documents from files: what is read, in which order, and what a broken file says."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import Source

RECORDS = [{"text": "안녕하세요", "id": 1}, {"text": "둘째 글\n줄이 둘", "id": 2}]


def texts(path, **settings):
    return [document.text for shard in Source(path=str(path), **settings).shards() for document in shard.documents()]


def lines(records=RECORDS) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


@pytest.mark.parametrize("name, compress", [
    ("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.bz2", bz2.compress), ("a.jsonl.xz", lzma.compress),
])  # fmt: skip
def test_json_lines_are_read_compressed_or_not(tmp_path, name, compress):
    (tmp_path / name).write_bytes(compress(lines()))
    assert texts(tmp_path / name) == [record["text"] for record in RECORDS]


def test_zstandard_is_read(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines()))
    assert texts(tmp_path / "a.jsonl.zst") == [record["text"] for record in RECORDS]


def test_parquet_is_read(tmp_path):
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == [record["text"] for record in RECORDS]


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("한 줄\n두 줄\n", encoding="utf-8")
    assert texts(tmp_path / "a.txt") == ["한 줄\n두 줄\n"]


def test_a_document_says_where_it_stands_and_keeps_the_other_fields(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\n" + lines())
    (shard,) = Source(path=str(tmp_path / "a.jsonl")).shards()
    first = next(shard.documents())
    assert (first.line, first.fields) == (2, {"id": 1})


def test_several_columns_give_a_document_each_and_empty_ones_none(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([{"q": "질문", "a": "대답"}, {"q": "", "a": "혼잣말"}]))
    assert texts(tmp_path / "a.jsonl", columns=["q", "a"]) == ["질문", "대답", "혼잣말"]


def test_a_directory_and_a_pattern_give_files_in_order_of_their_names(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines([{"text": name}]))
    (tmp_path / "README.md").write_text("not text of the corpus")
    assert texts(tmp_path) == texts(tmp_path / "*.jsonl") == ["a", "b", "c"]


def test_a_file_that_breaks_off_says_how_much_was_read(tmp_path):
    whole = gzip.compress(lines([{"text": f"{n}" * 50} for n in range(2000)]))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EEVEError, match=r"a\.jsonl\.gz: broken after [\d,]+ lines"):
        texts(tmp_path / "a.jsonl.gz")


def test_a_broken_parquet_file_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(EEVEError, match=r"a\.parquet: broken Parquet"):
        texts(tmp_path / "a.parquet")


def test_a_bad_line_is_named_or_skipped_as_told(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "하나"}]) + b"not json\n" + lines([{"text": "둘"}]))
    with pytest.raises(EEVEError, match=r"a\.jsonl, line 2: not a JSON object"):
        texts(tmp_path / "a.jsonl")
    assert texts(tmp_path / "a.jsonl", on_bad_line="skip") == ["하나", "둘"]


def test_a_missing_column_names_those_present(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([{"body": "글", "id": 3}]))
    with pytest.raises(EEVEError, match=r"no column 'text'; there are 'body', 'id'"):
        texts(tmp_path / "a.jsonl")


def test_a_path_that_matches_nothing_is_told(tmp_path):
    with pytest.raises(EEVEError, match="matches no file"):
        texts(tmp_path / "*.jsonl")


def test_a_kind_that_is_not_known_is_told(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"?")
    with pytest.raises(EEVEError, match="its kind is not known"):
        texts(tmp_path / "a.docx")
