"""The corpus as a step of the chain: in its place, made once, known by content, refused early if it cannot fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eeve_axolotl.corpus.manifest import held_out_file, tokenizer_identity
from eeve_axolotl.corpus.origin import made_of
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import sha256
from eeve_axolotl.records import CORPUS_MANIFEST
from eeve_axolotl.settings import read_yaml
from tests.faults.grounds import Launcher, chain, write_ground
from tests.faults.grounds import made_of as weights_made_of

TRAIN = "corpus/train/00000.jsonl"
EVALUATE = {"texts": {"Korean": "corpus/held_out/korean.parquet"}}


class Making(Launcher):
    """Writes a corpus too: all of its text goes into one shard."""

    def __call__(self, arguments: list[str], log: Path, on_step) -> int:
        if arguments[:2] == ["eeve", "corpus"]:
            make(read_yaml(arguments[2], CorpusSettings))
        return super().__call__(arguments, log, on_step)


def make(settings: CorpusSettings) -> None:
    held_out_file(settings.output, "korean").parent.mkdir(parents=True)
    held_out_file(settings.output, "korean").write_text("held out")
    Path(TRAIN).parent.mkdir()
    Path(TRAIN).write_bytes(b"".join(Path(each.path).read_bytes() for each in settings.mix["korean"].sources))
    manifest = {
        "tokenizer": {"identity": tokenizer_identity(settings.tokenizer), "directory": settings.tokenizer},
        "longest_record": settings.write.longest_record,
        "shards": {"train/00000.jsonl": {"sha256": sha256(Path(TRAIN))}},
        "settings": settings.model_dump(mode="json"),
        "made_of": made_of(settings),
    }
    Path(settings.output, CORPUS_MANIFEST).write_text(json.dumps(manifest))


def write_corpus(**keys) -> None:
    mix = {"korean": {"share": 1.0, "language": "ko", "sources": [{"path": "raw.jsonl"}]}}
    whole = {
        "tokenizer": "base",
        "output": "corpus",
        "mix": mix,
        "budget": {"share": 1.0},
        "write": {"sequence_len": 128},
    }
    Path("corpus.yml").write_text(yaml.safe_dump({**whole, **keys}))


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """A base, raw text, a corpus YAML, and a stage that reads what the corpus writes."""
    monkeypatch.chdir(tmp_path)
    write_ground(tmp_path, datasets=[{"path": TRAIN, "type": "completion"}], sequence_len=128)
    Path("raw.jsonl").write_text('{"text": "one"}\n')
    Path("other.jsonl").write_text('{"text": "other"}\n')
    write_corpus()


def run(launcher: Launcher | None = None, **keys) -> list[str]:
    """Run the chain; the commands that it took."""
    launcher = launcher or Making()
    chain(Path(), launcher, corpus="corpus.yml", **keys).run()
    return [" ".join(each[: 1 + (each[0] == "eeve")]) for each in launcher.commands]


def test_the_corpus_is_made_before_it_is_read_and_once(ground):
    assert run() == ["eeve corpus", "train"]
    assert "one" in weights_made_of(Path("out3"))
    assert run() == []


@pytest.mark.parametrize("files", [TRAIN, [TRAIN]])
def test_a_run_may_name_the_corpus_by_its_files(ground, files):
    write_ground_again(datasets=[{"path": "json", "data_files": files, "type": "completion"}])
    tasks = chain(Path(), Making(), corpus="corpus.yml").tasks
    assert [each.name for each in tasks.in_order()] == ["corpus", "stage3"]


def test_its_place_is_after_the_tokenizer_and_before_whatever_reads_it(ground):
    tokenizer = {"base": "base", "output": "words", "corpus": [{"path": "raw.jsonl"}]}
    Path("tokenizer.yml").write_text(yaml.safe_dump(tokenizer))
    write_corpus(tokenizer="words")
    write_ground_again(tokenizer_config="words")
    made = chain(Path(), Making(), corpus="corpus.yml", tokenizer="tokenizer.yml", evaluate=EVALUATE)
    names = [each.name for each in made.tasks.in_order()]
    assert names == ["tokenizer", "corpus", "evaluate.base", "evaluate.extended", "stage3", "evaluate.stage3"]
    without = chain(Path(), Making(), corpus="corpus.yml")
    assert [each.name for each in without.tasks.in_order()] == ["corpus", "stage3"]


def write_ground_again(**keys) -> None:
    cfg = yaml.safe_load(Path("stage3.yml").read_text())
    Path("stage3.yml").write_text(yaml.safe_dump({**cfg, **keys}))


def test_a_chain_that_stopped_goes_on_with_the_corpus_that_is_there(ground):
    class Failing(Making):
        def __call__(self, arguments, log, on_step):
            status = super().__call__(arguments, log, on_step)
            return 1 if arguments[0] == "train" else status

    with pytest.raises(EEVEError, match="failed"):
        run(Failing())
    Path("out3/eeve_stage.json").unlink()
    assert run() == ["train"]


@pytest.mark.parametrize("change, told", [
    (lambda: Path("raw.jsonl").write_text('{"text": "two"}\n'), "raw.jsonl has another content"),
    (lambda: write_corpus(seed=7), "seed was 0 and is 7"),
    (lambda: Path(TRAIN).write_text("mine"), "00000.jsonl is not as it was written"),
    (lambda: Path(TRAIN).unlink(), "00000.jsonl is gone"),
    (lambda: Path("base/tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"b": 0}, "merges": []}}'),
     "is another tokenizer"),
])  # fmt: skip
def test_what_has_changed_since_it_was_made_is_named_and_nothing_is_done(ground, change, told):
    run()
    change()
    launcher = Making()
    with pytest.raises(EEVEError, match=told):
        run(launcher)
    assert launcher.commands == []


@pytest.mark.parametrize("change", [
    lambda: Path("raw.jsonl").unlink(),  # raw text is large: it may be thrown away
    lambda: write_corpus(executor={"workers": 3}),
    lambda: write_corpus(work="elsewhere"),
])  # fmt: skip
def test_what_changes_nothing_in_the_text_is_no_change(ground, change):
    run()
    change()
    assert run() == []


@pytest.mark.parametrize("change, keys, told", [
    (lambda: write_ground_again(datasets=[{"path": "raw.jsonl"}]), {}, "no run reads corpus"),
    (lambda: write_ground_again(sequence_len=64), {}, "documents of up to"),
    (lambda: write_ground_again(tokenizer_config="other"), {}, "stage3.yml trains with other"),
    (lambda: write_corpus(tokenizer="words"), {}, "trains with base"),
    (lambda: Path("raw.jsonl").unlink(), {}, "raw.jsonl matches no file"),
    (lambda: write_corpus(held_out={"share": 0}), {"evaluate": EVALUATE}, "`held_out.share` is 0"),
    (lambda: None, {"evaluate": {"texts": {"Greek": "corpus/held_out/greek.parquet"}}}, "one of corpus/held_out/korean"),
    (lambda: Path("corpus.yml").unlink(), {}, "corpus.yml does not exist"),
])  # fmt: skip
def test_a_corpus_that_cannot_fit_is_refused_before_any_work(ground, change, keys, told):
    change()
    with pytest.raises(EEVEError, match=told):
        chain(Path(), Making(), corpus="corpus.yml", **keys)


def test_the_tokenizer_that_the_chain_builds_is_the_corpuss(ground):
    Path("tokenizer.yml").write_text(
        yaml.safe_dump({"base": "base", "output": "words", "corpus": [{"path": "raw.jsonl"}]})
    )
    with pytest.raises(EEVEError, match="tokenizer base, but tokenizer.yml builds words"):
        chain(Path(), Making(), corpus="corpus.yml", tokenizer="tokenizer.yml")


def test_work_that_is_only_queued_is_said_to_be(ground):
    with pytest.raises(EEVEError, match="has queued its work; run the same command again"):
        run(Launcher())
    assert not Path("out3").exists()


def test_a_directory_of_a_users_own_is_not_taken_for_the_corpus(ground):
    """Nothing in it says that it is ours: `axolotl eeve corpus` is asked, and refuses it in its own words."""
    Path("corpus/train").mkdir(parents=True)
    assert next(each.done for each in chain(Path(), Making(), corpus="corpus.yml").tasks.in_order()) is False
