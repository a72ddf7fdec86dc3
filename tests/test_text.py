"""Which part of the text stages read by their settings and records, and what keeps them from reading on."""

from __future__ import annotations

import json

import pytest

from eeve_axolotl.args import read_block
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import RECORD
from eeve_axolotl.text import check_text, text_read, text_spans, where_it_reads


def test_a_stages_place_in_the_text_is_read_from_the_model_that_it_starts_from(tmp_path):
    assert text_read(None) is None and text_read("some/model-on-the-hub") is None
    (tmp_path / "merged").mkdir()
    assert text_read(str(tmp_path / "merged")) is None
    (tmp_path / RECORD).write_text('{"weights": {}, "text": {"seed": 1}}')
    assert text_read(str(tmp_path)) == text_read(str(tmp_path / "merged")) == {"seed": 1}  # merged by hand
    (tmp_path / "merged" / RECORD).write_text('{"weights": {}, "text": {"seed": 2}}')
    assert text_read(str(tmp_path / "merged")) == {"seed": 2}


def test_each_stage_reads_on_where_the_one_before_stopped_or_again_from_the_start():
    assert text_spans([(10, False), (5, False), (7, True), (1, False)]) == [(0, 10), (10, 15), (0, 7), (7, 8)]


def test_a_run_says_beforehand_where_it_will_read(tmp_path):
    def says(block: dict, **cfg) -> str:
        return where_it_reads({"base_model": str(tmp_path), **cfg}, read_block({"eeve": block}))

    assert "from its beginning, and each stage on" in says({"stages": [1, 2]})
    read = {"to": {"passes": 1, "sequences": 1600, "of": 52310}}
    (tmp_path / RECORD).write_text(json.dumps({"weights": {}, "text": read}))
    assert "after 1,600 of 52,310 sequences of pass 2" in says({"stage": 3})
    assert "from its beginning" in says({"stage": 3, "text": "again"}) == says({"stage": 3}, streaming=True)


STREAM = {"pretraining_dataset": [{"path": "text"}]}


def check(block: dict, **cfg) -> None:
    cfg = {"base_model": "base", "eeve": block, **cfg}
    check_text(cfg, read_block(cfg))


@pytest.mark.parametrize("stream", [STREAM, {"datasets": [{"path": "text"}], "streaming": True}])
def test_a_stream_is_refused_where_a_stage_would_have_to_go_on_in_it(tmp_path, stream):
    check({"stage": 1}, **stream)
    check({"stages": [1, 2], "text": "again"}, **stream)
    (tmp_path / RECORD).write_text('{"weights": {}, "text": {"streamed": true}}')
    for block, base in (({"stages": [1, 2]}, "base"), ({"stage": 2}, str(tmp_path))):
        with pytest.raises(EEVEError, match="set `eeve.text: again`"):
            check(block, **stream, base_model=base)


@pytest.mark.parametrize("key", ["split_batches", "dispatch_batches"])
def test_batches_that_accelerate_divides_otherwise_are_refused(key):
    check({"stages": [1, 2]}, accelerator_config={key: False})
    check({"stage": 1}, accelerator_config={key: True}, **STREAM)
    with pytest.raises(EEVEError, match=f"accelerator_config.{key}"):
        check({"stage": 1}, accelerator_config={key: True})
