"""Documents from files: what is read, in which order, and what a broken file says."""

import bz2
import gzip
import json
import lzma
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.paths import files_below
from eeve_axolotl.sources import Source

RECORDS = [{"text": "안녕하세요", "id": 1}, {"text": "둘째 글\n줄이 둘", "id": 2}]


def texts(path, **settings):
    return [
        document.text
        for shard in Source(path=str(path), **settings).shards()
        for document in shard.documents()
    ]


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


@pytest.mark.parametrize("place", [0, 30, -4], ids=["header", "data", "checksum"])
def test_a_gzip_file_with_a_wrong_byte_is_named(tmp_path, place):
    whole = bytearray(gzip.compress(lines([{"text": f"{n}" * 50} for n in range(2000)])))
    whole[place] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(whole)
    with pytest.raises(EEVEError, match=r"a\.jsonl\.gz: broken after [\d,]+ lines"):
        texts(tmp_path / "a.jsonl.gz")


def test_a_parquet_file_is_not_in_memory_as_a_whole(tmp_path):
    records = [{"text": os.urandom(500).hex()} for _ in range(8_000)]
    pq.write_table(
        pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=200, compression=None
    )
    (shard,) = Source(path=str(tmp_path / "a.parquet")).shards()
    before, most = pa.total_allocated_bytes(), 0
    for document, record in zip(shard.documents(), records, strict=True):
        assert document.text == record["text"]
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < (tmp_path / "a.parquet").stat().st_size / 2


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


def test_zstandard_and_gzip_files_of_several_members_are_read_whole(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    for name, compress in (
        ("a.jsonl.zst", zstandard.ZstdCompressor().compress),
        ("a.jsonl.gz", gzip.compress),
    ):
        (tmp_path / name).write_bytes(compress(lines(RECORDS[:1])) + compress(lines(RECORDS[1:])))
        assert texts(tmp_path / name) == [record["text"] for record in RECORDS]


def test_lines_longer_than_what_is_read_at_once_and_without_an_end(tmp_path):
    long = [{"text": letter * 2_000_000} for letter in "가나"]
    (tmp_path / "a.jsonl").write_bytes(lines(long).rstrip(b"\n"))
    assert texts(tmp_path / "a.jsonl") == [record["text"] for record in long]


def test_what_is_json_only_to_python_is_read(tmp_path):
    half = '{"text": "\\ud83d 가", "score": NaN}\n'
    (tmp_path / "a.jsonl").write_text(half + "\r\n" + '{"text": "나"}\r\n')
    assert texts(tmp_path / "a.jsonl") == ["\ud83d 가", "나"]


def test_a_line_that_is_no_utf8_is_a_bad_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(RECORDS[:1]) + b'{"text": "\xff"}\n')
    with pytest.raises(EEVEError, match=r"a\.jsonl, line 2: not a JSON object"):
        texts(tmp_path / "a.jsonl")


def test_lines_of_plain_text_are_documents_if_told(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("한 줄\r\n\n두 줄".encode()))
    assert texts(tmp_path / "a.txt.gz", by_line=True) == ["한 줄", "두 줄"]
    assert texts(tmp_path / "a.txt.gz") == ["한 줄\n\n두 줄"]


def test_plain_text_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("가\n나\n".encode() + "다".encode("cp949"))
    with pytest.raises(EEVEError, match=r"a\.txt: no UTF-8 after 2 lines"):
        texts(tmp_path / "a.txt", by_line=True)
    with pytest.raises(EEVEError, match=r"a\.txt: no UTF-8"):
        texts(tmp_path / "a.txt")


def test_a_parquet_file_that_breaks_off_says_how_much_was_read(tmp_path):
    records = [{"text": f"글 {n} {n * 7919 % 1000}"} for n in range(20_000)]
    pq.write_table(
        pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=2_000, compression=None
    )
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EEVEError, match=r"short\.parquet: broken Parquet after 0 rows"):
        texts(tmp_path / "short.parquet")
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(5).column(0)
    begin = group.dictionary_page_offset or group.data_page_offset
    (tmp_path / "torn.parquet").write_bytes(whole[:begin] + b"\xff" * 200 + whole[begin + 200 :])
    with pytest.raises(EEVEError, match=r"torn\.parquet: broken Parquet after (9|10),\d+ rows"):
        texts(tmp_path / "torn.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt"])
def test_parts_of_a_file_have_every_text_once(tmp_path, name):
    records = [{"text": f"글 {n}", "more": n} for n in range(3000)]
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(records), tmp_path / name)
    elif name == "a.txt":
        (tmp_path / name).write_text("\n".join(record["text"] for record in records), encoding="utf-8")
    else:
        (tmp_path / name).write_bytes(lines(records))
    (shard,) = Source(path=str(tmp_path / name), by_line=True).shards()
    parts = [list(shard.texts(number, 3)) for number in range(3)]
    assert sorted(text for part in parts for text in part) == sorted(record["text"] for record in records)
    assert all(parts) and list(shard.texts()) == [document.text for document in shard.documents()]


def dataset(directory, kind: str) -> str:
    """A Hugging Face dataset on disk with two files, as `datasets` finds or saves them."""
    import datasets

    records = [{"text": f"글 {n}", "title": f"제목 {n}" if n % 2 else ""} for n in range(40)]
    if kind == "saved":
        data = datasets.Dataset.from_list(records)
        datasets.DatasetDict({"train": data}).save_to_disk(str(directory))
    else:
        for n in range(2):
            (directory / f"train-{n}.jsonl").write_bytes(lines(records[n * 20 : n * 20 + 20]))
    return str(directory)


@pytest.mark.parametrize("kind", ["files", "saved"])
def test_a_dataset_is_streamed(tmp_path, kind):
    path = dataset(tmp_path, kind)
    shards = Source(path=path, split="train", columns=["text", "title"]).shards()
    assert len(shards) == (2 if kind == "files" else 1)
    found = [document.text for shard in shards for document in shard.documents()]
    assert sorted(found) == sorted(
        [*(f"글 {n}" for n in range(40)), *(f"제목 {n}" for n in range(40) if n % 2)]
    )
    assert sorted(text for shard in shards for n in (0, 1) for text in shard.texts(n, 2)) == sorted(found)
    few = Source(path=path, split="train", documents=10).shards()
    assert sum(1 for shard in few for _ in shard.texts()) == 10
    with pytest.raises(EEVEError, match=r"no column 'body'; there are 'text', 'title': set `columns`"):
        next(Source(path=path, split="train", columns=["body"]).shards()[0].documents())


def test_a_dataset_that_changed_has_another_identity(tmp_path):
    source = Source(path=dataset(tmp_path, "files"), split="train")
    before = source.shards()[0].identity()
    assert source.shards()[0].identity() == before
    (tmp_path / "train-0.jsonl").write_bytes(lines())
    assert source.shards()[0].identity() != before


@pytest.mark.parametrize("settings", [{"path": "nobody/has_this"}, {"name": "none"}, {"split": "other"}])
def test_a_dataset_that_cannot_be_read_is_told(tmp_path, settings):
    settings = {"path": dataset(tmp_path, "files"), "split": "train", **settings}
    with pytest.raises(EEVEError, match="cannot be read.*correct path, name or split"):
        Source(**settings).shards()


def test_a_dataset_s_keys_need_a_split(tmp_path):
    with pytest.raises(ValueError, match="give `split` too"):
        Source(path=str(tmp_path), documents=3)


@pytest.mark.parametrize("value, what", [
    (3, r"a number \(3\)"), (0, r"a number \(0\)"), (1.5, "a number"), (False, r"true or false \(False\)"),
    (["a", "b"], r"a list \(\['a', 'b'\]\)"), ([], "a list"), ({"role": "user"}, "an object"), ({}, "an object"),
])  # fmt: skip
def test_what_is_no_text_is_told_with_its_line(tmp_path, value, what):
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "글"}, {"text": value}, {"text": "둘"}]))
    with pytest.raises(EEVEError, match=rf"a\.jsonl, line 2: the column 'text' holds {what}.* and no text"):
        texts(tmp_path / "a.jsonl")
    assert texts(tmp_path / "a.jsonl", on_bad_line="skip") == ["글", "둘"]


def test_nothing_is_no_document(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": None}, {"text": ""}, {"text": "글"}]))
    assert texts(tmp_path / "a.jsonl") == ["글"]


def test_columns_of_parquet_and_datasets_that_hold_no_text_are_told_and_bytes_are_read(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(["글".encode()]), "n": [[7]], "bad": [b"\xff"]}), file)
    assert texts(file) == ["글"]
    for column, what in (("n", r"a list \(\[7\]\)"), ("bad", "bytes that are no UTF-8")):
        with pytest.raises(EEVEError, match=f"line 1: the column '{column}' holds {what}"):
            texts(file, columns=[column])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_bytes(lines([{"text": 5}]))
    with pytest.raises(EEVEError, match="the column 'text' holds a number"):
        texts(tmp_path / "data", split="train")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.txt.xz"])
@pytest.mark.parametrize("by_line", [True, False])
def test_a_mark_before_utf8_is_no_text(tmp_path, name, by_line):
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(name[-3:], bytes)
    content = lines([{"text": "글"}]) if "json" in name else "글".encode()
    (tmp_path / name).write_bytes(compress(b"\xef\xbb\xbf" + content))
    assert texts(tmp_path / name, by_line=by_line) == ["글"]


def test_marks_where_files_were_put_one_after_the_other(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"".join(b"\xef\xbb\xbf" + lines([{"text": text}]) for text in "가나"))
    assert texts(tmp_path / "a.jsonl") == ["가", "나"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz"])
def test_wide_encodings_are_named_with_what_converts_them(tmp_path, name, encoding):
    text = "plain words 글\n" if "txt" in name else lines().decode()
    content = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for how in ("fail", "skip"):
        with pytest.raises(EEVEError, match=rf"it is in {encoding[:6].upper()}; write it in UTF-8 \(iconv"):
            texts(tmp_path / name, on_bad_line=how)


@pytest.mark.parametrize("path", ["", " ", "\n"])
@pytest.mark.parametrize("split", [None, "train"])
def test_an_empty_path_reads_nothing(tmp_path, monkeypatch, path, split):
    (tmp_path / "secret.jsonl").write_bytes(lines())
    monkeypatch.chdir(tmp_path)
    source = Source(path=path, split=split)
    for read in (source.shards, source.identity):
        with pytest.raises(EEVEError, match="path is empty; give a file"):
            read()


@pytest.mark.parametrize("path", ["/", "//", "/tmp/.."])
def test_the_root_is_not_read(path):
    with pytest.raises(EEVEError, match="is the whole file system"):
        Source(path=path).shards()


def test_evaluation_reads_neither_an_empty_path_nor_what_is_no_text(tmp_path, monkeypatch):
    from eeve_axolotl.evaluation.scoring import read_texts

    (tmp_path / "a.jsonl").write_bytes(lines([{"text": [1]}]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EEVEError, match="path is empty"):
        read_texts("")
    with pytest.raises(EEVEError, match="holds a list"):
        read_texts("a.jsonl")


def linked(directory):
    """A corpus with links: two of its directories to each other, one to itself, to parents, and to one elsewhere."""
    for name in ("corpus/a", "corpus/b", "elsewhere"):
        (directory / name).mkdir(parents=True)
        (directory / name / "x.jsonl").write_bytes(lines([{"text": name}]))
    (directory / "not_meant.jsonl").write_bytes(lines([{"text": "not meant"}]))
    for link, to in (("a/self", "."), ("a/other", "../b"), ("b/other", "../a"), ("b/up", "../.."), ("b/root", "/"),
                     ("c", "../elsewhere"), ("nowhere", "gone"), ("round", "round")):  # fmt: skip
        (directory / "corpus" / link).symlink_to(to)
    return directory / "corpus"


@pytest.mark.parametrize("pattern", ["", "/", "/**", "/**/*.jsonl", "/**/**/x.jsonl", "/*/**/*.jsonl"])
def test_links_in_circles_and_to_parents_give_each_document_once(tmp_path, pattern):
    corpus = linked(tmp_path)
    assert sorted(texts(f"{corpus}{pattern}")) == ["corpus/a", "corpus/b", "elsewhere"]


def test_a_pattern_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(linked(tmp_path))
    assert (
        sorted(texts("**/*.jsonl")) == sorted(texts("./**/*.jsonl")) == ["corpus/a", "corpus/b", "elsewhere"]
    )
    assert [str(file) for file in Source(path="**/*.jsonl").files()] == [
        "a/x.jsonl",
        "b/x.jsonl",
        "c/x.jsonl",
    ]


def test_hidden_files_are_not_read_and_brackets_in_a_directory_s_name_are_no_pattern(tmp_path):
    directory = tmp_path / "v[1]"
    (directory / ".cache").mkdir(parents=True)
    for name in ("a.jsonl", ".b.jsonl", ".cache/c.jsonl"):
        (directory / name).write_bytes(lines([{"text": name}]))
    assert texts(directory) == texts(directory / "a.jsonl") == ["a.jsonl"]


def test_endings_may_be_in_capitals(tmp_path):
    (tmp_path / "A.JSONL").write_bytes(lines(RECORDS[:1]))
    (tmp_path / "B.JSONL.GZ").write_bytes(gzip.compress(lines(RECORDS[:1])))
    (tmp_path / "C.jsonl.BZ2").write_bytes(bz2.compress(lines(RECORDS[1:])))
    assert texts(tmp_path) == [RECORDS[0]["text"], RECORDS[0]["text"], RECORDS[1]["text"]]


# Without the time of day in it: it is part of the test's name, which all of pytest's processes must call alike.
@pytest.mark.parametrize("name, content, sentence", [
    ("a.jsonl", gzip.compress(b"x", mtime=0), r"is gzip, not text; name it with \.gz at its end"),
    ("a.txt", bz2.compress(b"x"), r"is bzip2, not text; name it with \.bz2"),
    ("a.txt.gz", gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "is gzip, not text"),
    ("a.txt", b"PK\x03\x04 zip", "is a ZIP archive, not text; unpack it"),
    ("a.txt.xz", lzma.compress(b"f" * 257 + b"ustar" + bytes(200)), "is a tar archive, not text; unpack it"),
    ("a.txt", b"PAR1....", r"is Parquet, not text; name it with \.parquet"),
    ("a.jsonl.gz", b'{"text": "a"}\n', r"it is not compressed; take \.gz off its name"),
    ("a.txt.zst", b"plain text", r"it is not compressed; take \.zst off its name"),
    ("a.json", b'[{"text": "a"},\n {"text": "b"}]\n', "line 1: not a JSON object, but a list: write each"),
    ("a.json", b'{\n "text": "a"\n}\n', "line 1: not a JSON object, but the beginning of one"),
    ("a.jsonl", '{"text": "가"}'.encode("cp949"), r"line 1: not a JSON object, nor UTF-8 \(invalid start byte"),
])  # fmt: skip
def test_files_that_are_not_what_their_names_say_are_told(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EEVEError, match=sentence):
        texts(tmp_path / name)


def test_a_saved_dataset_without_a_split_is_told(tmp_path):
    path = dataset(tmp_path / "saved", "saved")
    with pytest.raises(EEVEError, match="is a dataset that `datasets` has saved; give its `split` too"):
        Source(path=path).shards()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.zip", "a.tar.gz", "a.arrow", "a.csv.gz"])
def test_kinds_that_are_not_read_are_told_with_those_that_are(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbftext\n")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(
            EEVEError, match=r"\.jsonl.*\.parquet, \.txt.*write a table .* as Parquet or JSON lines"
        ):
            texts(path)


def test_below_a_directory_that_is_not_there_is_nothing(tmp_path):
    assert list(files_below(tmp_path / "not" / "there")) == []
