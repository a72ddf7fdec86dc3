"""What is told of how far a build is agrees with what has been read."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import intermediate, watching
from eeve_axolotl.tokenizer.counting import count
from eeve_axolotl.tokenizer.token_counts import count_tokens

RECORDS = [{"text": f"하나 둘 셋 {n * 7919 % 100_003} {n}"} for n in range(60_000)]


class Told:
    """A meter that remembers."""

    def __init__(self, what=None, log=None, ask=None, **_):
        self.what, self.readings, self.ask = [what], [], ask

    def at(self, share, size):
        self.readings.append((share, size))

    def then(self, what):
        self.what.append(what)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(scope="module")
def content() -> bytes:
    return "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def compressed(name: str, content: bytes) -> bytes:
    if name.endswith(".zst"):
        return pytest.importorskip("zstandard").ZstdCompressor().compress(content)
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lambda raw: lzma.compress(raw, preset=0)}.get(
        name[name.rindex(".") :], bytes
    )(content)


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.xz", "a.jsonl.zst", "a.parquet"]
)
def test_a_file_tells_how_far_it_is_read(name, content, tmp_path):
    file, place = tmp_path / name, tmp_path / "told"
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), file)
    else:
        more = 2 if name == "a.jsonl" else 1  # more than is read before the first line is asked for
        file.write_bytes(compressed(name, content * more))
    (shard,) = Source(path=str(file)).shards()
    told = []
    for text in shard.telling(place).texts():
        assert text
        if place.exists() and (position := int(place.read_text() or 0)) not in told[-1:]:
            told.append(position)
    assert told == sorted(told) and len(told) > (".jsonl." not in name)  # small ones are read at once
    assert 0.6 * shard.size() < told[-1] <= shard.size()


def test_counting_says_which_share_of_the_files_is_read(content, splitter, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "Meter", Told)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(content)
    shards, seen = Source(path=str(tmp_path / "*.jsonl")).shards(), []
    made = []
    monkeypatch.setattr(watching, "Meter", lambda *given: made.append(Told(*given)) or made[-1])
    with watching.counting(shards, tmp_path / "work") as watched:
        assert made[0].ask() == (0, 0)
        for text in watched[0].texts():
            assert text
        seen.append(made[0].ask())
        count(watched, splitter, tmp_path / "work")
        seen.append(made[0].ask())
    assert 0.4 < seen[0][0] <= 0.5 and seen[0][1] <= len(content)
    assert seen[1] == (1, 2 * len(content))
    assert not (tmp_path / "work" / "read").exists()


def test_training_and_checking_say_how_much_is_read(table_of, state, monkeypatch):
    table = table_of("가나 다라 " * 50, "마바 가나")
    made = []
    monkeypatch.setattr(intermediate, "Meter", lambda *given: made.append(Told(*given)) or made[-1])
    intermediate.learn(table, 50)
    (training,) = made
    assert training.readings[-1] == (1, (50 * 2 + 2) * 3 * 3)  # each word is ▁ and two letters of three bytes
    assert training.what[1].endswith("merging pairs")
    meter = Told()
    twice = watching.WatchedTable(table, meter, times=2)
    assert count_tokens(state, twice) == count_tokens(state, table)
    assert meter.readings[-1] == (0.5, 3 * 9)
    count_tokens(state, twice)
    assert meter.readings[-1] == (1, 2 * 3 * 9)
