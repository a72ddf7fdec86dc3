"""Records that are wrong in many ways, and everything of ours that reads records: it works, or says which file is wrong."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from eeve_axolotl import report
from eeve_axolotl.args import read_block
from eeve_axolotl.base_model import on_meta
from eeve_axolotl.checks import check_head
from eeve_axolotl.corpus.manifest import check_recipe, corpus_tokens, tokenizer_identity
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.inspection import retention
from eeve_axolotl.evaluation.settings import EvaluationSettings
from eeve_axolotl.planner import gpus
from eeve_axolotl.planner.estimate import Options, estimate
from eeve_axolotl.records import CHECKPOINT_TEXT, FIGURES, TOKENIZER_FILE, read
from eeve_axolotl.report import card, content
from eeve_axolotl.settings import read_mapping
from eeve_axolotl.text import where_it_reads
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.counting.parts import Part as Part_
from eeve_axolotl.tokenizer.counting.parts import resume
from eeve_axolotl.tokenizer.origin import what_changed
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.trainer.text_order import Part
from tests.faults.grounds import Evaluating, chain, write_ground
from tests.report import pipeline as made_up

WHOLE_FILE = [
    b"",
    b"null",
    b"[]",
    b"5",
    b'"x"',
    b"{}",
    b"{",
    b'{"a": ',
    b"\xff\xfe",
    b"\0",
    b"[" * 100_000,
    b"[{}]",
]
VALUES = [
    None,
    5,
    -1,
    10**400,
    1e400,
    float("nan"),
    "",
    "x\0y",
    True,
    [],
    ["x"],
    [[]],
    {},
    {"x": {}},
    {"x": [1, {}]},
]
GONE = object()


def places(content: object, at: tuple = ()) -> Iterator[tuple]:
    """Where something stands in JSON, two of each list's and large mapping's."""
    yield at
    entries = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, each in list(entries)[:30] if isinstance(content, dict) else list(entries)[:2]:
        yield from places(each, (*at, key))


def changed(content: dict, at: tuple, value: object) -> bytes:
    """JSON of `content` with another `value` in a place, or with nothing there."""
    copy = json.loads(json.dumps(content))
    inside = copy
    for key in at[:-1]:
        inside = inside[key]
    if value is GONE:
        del inside[at[-1]]
    else:
        inside[at[-1]] = value
    return json.dumps(copy).encode()


def corruptions(content: dict, seed: int = 0, most: int = 10**9) -> Iterator[tuple[str, bytes]]:
    """Ways in which a record can be wrong, each with what to call it; `most` of those inside it, drawn by `seed`."""
    text = json.dumps(content).encode()
    for whole in (*WHOLE_FILE, text[: len(text) // 2], text[:-1], text + text):
        yield repr(whole[:20]), whole
    inside = [(at, value) for at in places(content) if at for value in (GONE, *VALUES)]
    source = random.Random(seed)
    for at, value in source.sample(inside, most) if len(inside) > most else inside:
        yield f"{at}: {'gone' if value is GONE else repr(value)[:20]}", changed(content, at, value)


CONFIG = {
    "model_type": "llama", "vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "tie_word_embeddings": False, "eeve_axolotl": {"base_vocab_size": 30, "vocab_size": 32},
}  # fmt: skip
PLACE = {"passes": 0, "sequences": 1, "of": 2, "cut": {}, "before": None}
TEXT = {"corpus": "x", "seed": 1, "from": PLACE, "to": PLACE}
EVALUATE = EvaluationSettings(texts={"Korean": "text.jsonl"}, limit=1)


def write(path: str, content: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content))


def make(directory: Path) -> None:
    """A chain with all its records, another as `tests/report` makes them up, a corpus, counts, and a checkpoint."""
    with contextlib.chdir(directory):
        write_ground(directory)
        chain(directory, Evaluating(EVALUATE), evaluate=EVALUATE).run()
        made_up.make(directory / "made")
        write("corpus/eeve_corpus.json", {
            "tokenizer": {"identity": tokenizer_identity("base"), "directory": "base"}, "longest_record": 9,
            "groups": {"ko": {"tokens": 9, "documents": 1}}, "shards": {"train/0.parquet": {}},
        })  # fmt: skip
        write("model/config.json", CONFIG)
        write("model/eeve_stage.json", {"weights": {}, "text": TEXT})
        cfg = read_mapping("stage3.yml") | {
            "eeve": {"stage": 3, "text": "continue"},
            "datasets": [{"path": "corpus"}],
        }
        cfg |= {"base_model": "model", "tokenizer_config": "new", "micro_batch_size": 1, "max_steps": 1}
        cfg["sequence_len"] = 64
        Path("onward.yml").write_text(yaml.safe_dump(cfg))
        write("checkpoint/eeve_text.json", {**TEXT, "step": 1})
        write(
            "counts/marks/part.json", {"part": "part", "file": "a", "documents": 1, "bytes": 2, "parquet": []}
        )
        shutil.copytree("base", "new", ignore=shutil.ignore_patterns("*.safetensors"))
        write("new/eeve_tokenizer.json", {
            "base_vocab_size": 30, "vocab_size": 32, "settings": {"base": "base", "script": ["Hangul"]},
            "made_of": {"base": {"a": "b"}, "corpus": [{"text.jsonl": "c"}], "lists": {"d": "e"}},
            "files": {"tokenizer.json": "x"},
        })  # fmt: skip


def reports() -> None:
    report.write("made/output")


def tells() -> None:
    """What a report says, without the plots."""
    data = report.collect("made/output")
    content.blocks(data, {})
    card.render(data)


def goes_on() -> None:
    chain(Path(), Evaluating(EVALUATE), evaluate=EVALUATE).run()


def plans() -> None:
    list(estimate("onward.yml", Options(gpu=gpus.find("h100-80gb"))))


def checks() -> None:
    cfg = read_mapping("onward.yml")
    check_recipe(cfg)
    corpus_tokens(cfg)
    where_it_reads(cfg, read_block(cfg))
    check_head({**cfg, "liger_fused_linear_cross_entropy": True}, on_meta(cfg))


def resumes() -> None:
    Part.read(read(Path("checkpoint/eeve_text.json"), CHECKPOINT_TEXT) or {}, "checkpoint")


def counts() -> None:
    for parts in ([Part_("part", None, 0, 1)], []):  # what is counted, and what was before
        resume(Path("counts"), parts)


def builds() -> None:
    settings = TokenizerSettings(base="base", output="new", corpus=[{"path": "text.jsonl"}])
    with pytest.raises(EEVEError, match="new exists|build the tokenizer again"):
        build(settings)
    what_changed(read(Path("new/eeve_tokenizer.json"), TOKENIZER_FILE) or {}, settings)


def retains() -> None:
    for each in (read(Path("made/output/evaluation/model1.json"), FIGURES) or {}).get("texts") or {}:
        retention({each: {}}, {each: {"bits_per_byte": 1.0}})
    texts = (read(Path("made/output/evaluation/model1.json"), FIGURES) or {}).get("texts") or {}
    retention(texts, {"Korean": {"bits_per_byte": 1.0}})


STAGES = "made/output/joint/stage2"
READERS: list[tuple[Callable[[], None], str]] = [  # what reads, and a record that it reads
    (tells, "made/output/eeve_pipeline.json"),
    (tells, f"{STAGES}/eeve_stage.json"),
    (tells, f"{STAGES}/eeve_history.json"),
    (tells, "made/output/evaluation/model1.json"),
    (tells, "made/output/tokenizer/eeve_tokenizer.json"),
    (tells, "made/output/tokenizer/tokenizer.json"),
    (reports, f"{STAGES}/eeve_history.json"),
    (reports, "made/output/evaluation/model1.json"),
    (goes_on, "pipeline/eeve_pipeline.json"),
    (goes_on, "pipeline/runs/stage3.json"),
    (goes_on, "pipeline/evaluation/stage3.json"),
    (goes_on, "out3/eeve_stage.json"),
    (goes_on, "out3/eeve_history.json"),
    (goes_on, "out3/config.json"),
    (goes_on, "base/tokenizer.json"),
    (plans, "model/config.json"),
    (plans, "new/eeve_tokenizer.json"),
    (checks, "corpus/eeve_corpus.json"),
    (checks, "model/eeve_stage.json"),
    (checks, "model/config.json"),
    (builds, "new/eeve_tokenizer.json"),
    (resumes, "checkpoint/eeve_text.json"),
    (counts, "counts/marks/part.json"),
    (retains, "made/output/evaluation/model1.json"),
]  # fmt: skip


def read_wrong(
    reader: Callable[[], None], file: str, seed: int, most: int
) -> Iterator[tuple[str, bool, str]]:
    """What happens when `reader` finds `file` wrong: how it is wrong, whether that was told well, and what was told.

    In the directory that `make` filled, which is as before in the end.
    """
    path = Path(file)
    whole = path.read_bytes()
    try:
        for what, wrong in corruptions(json.loads(whole), seed, most):
            path.write_bytes(wrong)
            try:
                reader()
            except EEVEError as error:
                told = str(error)
                named = path.parent.name in told or " is done, but since then " in told
                yield what, named and len(told.splitlines()) == 1, told
            except Exception:
                yield what, False, traceback.format_exc()[-600:]
            else:
                yield what, True, ""
    finally:
        path.write_bytes(whole)
    reader()  # it is the record alone that was wrong
