"""`axolotl eeve start`: output rows as likely as their tokens are in text; nothing else changes, nobody's files either."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from eeve_axolotl import calibration, embeddings
from eeve_axolotl.calibration import command, output_rows
from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.scoring import score
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.conftest import SMALL, tiny_llama
from tests.rows.helpers import tiny_model

WORDS = ["학교는", "조용하다", "지금", "안녕", "바다", "나무가", "하늘을", "본다"]


def write(path: Path, seed: int, documents: int = 60) -> Path:
    """Korean whose words are drawn unevenly, with a word of English now and then."""
    draw = random.Random(seed)
    lines = [
        " ".join(draw.choices([*WORDS, "the school"], weights=[2.0**-n for n in range(9)], k=20))
        for _ in range(documents)
    ]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ground(tmp_path_factory, small_tokenizer_directory) -> Path:
    """A base that is not tied, a tokenizer of ours that extends it, and text."""
    directory = tmp_path_factory.mktemp("start")
    shutil.copytree(small_tokenizer_directory, directory / "base")
    tiny_llama(SMALL, hidden_size=16).save_pretrained(directory / "base")
    corpus = write(directory / "text.jsonl", 0)
    build(
        TokenizerSettings(
            base=str(directory / "base"),
            output=str(directory / "tokenizer"),
            corpus=[{"path": str(corpus)}],
            new_tokens=24,
            min_count=2,
            intermediate_vocab_size=100,
        )
    )
    write(directory / "held_out.jsonl", 1)
    return directory


def begin(ground: Path, output: Path, **keys) -> calibration.Calibrated:
    settings = {"base": ground / "base", "texts": [str(ground / "text.jsonl")], "tokens": 3_000, **keys}
    base = str(settings.pop("base"))
    return calibration.start(base, str(ground / "tokenizer"), settings.pop("texts"), output, **settings)


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def started(ground) -> Path:
    found = begin(ground, ground / "started")
    assert found.after < found.before and found.rule == "fitted" and 0 < found.seen <= found.new
    return ground / "started"


def plain(ground: Path, base: str = "base"):
    """The extended model as a stage's own start makes it."""
    words = AutoTokenizer.from_pretrained(ground / "tokenizer")
    model = AutoModelForCausalLM.from_pretrained(ground / base)
    model.resize_token_embeddings(max(len(words), model.config.vocab_size), mean_resizing=False)
    embeddings.initialise(model, words, SMALL, SMALL)
    return model, words


def test_only_new_output_rows_are_others_than_a_stage_makes(ground, started):
    ours, theirs = AutoModelForCausalLM.from_pretrained(started).state_dict(), plain(ground)[0].state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        if name == "lm_head.weight":
            assert torch.equal(weight[:SMALL], theirs[name][:SMALL])
            assert not torch.equal(weight[SMALL:], theirs[name][SMALL:])
        else:
            assert torch.equal(weight, theirs[name])


def test_text_that_was_not_read_is_likelier(ground, started):
    model, words = plain(ground)
    held_out = texts_of(ground / "held_out.jsonl")
    ours = AutoModelForCausalLM.from_pretrained(started)
    assert score(ours, words, held_out).bits_per_byte < score(model, words, held_out).bits_per_byte - 0.05


def test_of_tokens_with_one_first_subword_the_rarer_is_less_likely(ground, started):
    words, head = AutoTokenizer.from_pretrained(started), load_head(started)
    states = calibration.States.none(len(words), head.shape[1])
    model = AutoModelForCausalLM.from_pretrained(started)
    calibration.read(model, words, zip(texts_of(ground / "text.jsonl"), strict=True), states, 3_000, 512)
    new = calibration.new_rows(words, SMALL)
    logits = head[new.ids] @ (states.sums / states.number)
    pairs = 0
    for one, first in zip(range(len(new.ids)), new.firsts, strict=True):
        for other in range(one):
            ratio = float(states.counts[new.ids[one]] / states.counts[new.ids[other]].clamp(min=0.5))
            if new.firsts[other] == first and ratio > 2:
                pairs += 1
                assert logits[one] > logits[other]
    assert pairs


def load_head(directory: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(directory).lm_head.weight.detach()


def test_the_record_and_the_tokenizers_files_are_there_and_a_stage_finds_all_rows(ground, started):
    record = json.loads((started / "eeve_start.json").read_text())
    assert record["rule"] == "fitted" and record["after"] < record["before"]
    assert (started / "eeve_tokenizer.json").is_file() and (started / "tokenizer.model").is_file()
    mark = json.loads((started / "config.json").read_text())["eeve_axolotl"]
    assert mark == {"base_vocab_size": SMALL, "vocab_size": len(AutoTokenizer.from_pretrained(started))}


def test_a_head_with_a_bias_has_its_logits_moved_by_it(ground):
    model = tiny_model("phi", vocab_size=SMALL + 64)
    words = AutoTokenizer.from_pretrained(ground / "tokenizer")
    with torch.no_grad():
        model.lm_head.bias.normal_()
    embeddings.initialise(model, words, SMALL, SMALL)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    found = calibration.calibrate(
        model, words, SMALL, zip(texts_of(ground / "text.jsonl"), strict=True), tokens=2_000, max_length=64
    )
    assert found.rule
    new = calibration.new_rows(words, SMALL)
    after = model.state_dict()
    assert not torch.equal(after["lm_head.bias"][new.ids], before["lm_head.bias"][new.firsts])
    for name, each in after.items():
        rows = slice(None, SMALL) if name.startswith("lm_head") else slice(None)
        assert torch.equal(each[rows], before[name][rows])


def test_rows_stay_as_they_were_where_nothing_helps(ground, monkeypatch):
    model, words = plain(ground)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    monkeypatch.setattr(output_rows, "EVERYWHERE", (-50.0, 80.0))
    for prior in ("ALL", "FIRST_SUBWORD", "FIRST_CHARACTER", "OWN"):
        monkeypatch.setattr(output_rows, prior, 1e9)
    found = calibration.calibrate(
        model, words, SMALL, zip(texts_of(ground / "text.jsonl"), strict=True), tokens=500, max_length=64
    )
    assert found.rule is None and found.after == found.before
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert "as a stage's own would" in calibration.told(found, "here")


def test_a_padded_vocabulary_keeps_its_rows(ground, tmp_path):
    shutil.copytree(ground / "base", tmp_path / "base")
    tiny_llama(SMALL + 100, hidden_size=16).save_pretrained(tmp_path / "base")
    begin(ground, tmp_path / "started", base=tmp_path / "base")
    assert load_head(tmp_path / "started").shape[0] == SMALL + 100


def test_one_matrix_for_both_is_refused_or_made_two(ground, tmp_path):
    shutil.copytree(ground / "base", tmp_path / "base")
    tiny_llama(SMALL, hidden_size=16, tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    with pytest.raises(EEVEError, match="one matrix for both embeddings.*--untie"):
        begin(ground, tmp_path / "started", base=tmp_path / "base")
    begin(ground, tmp_path / "started", base=tmp_path / "base", untie=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "started")
    assert not model.config.tie_word_embeddings
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


def test_what_cannot_be_used_is_told_and_nothing_is_written_or_replaced(
    ground, started, tmp_path, monkeypatch
):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("mine")
    with pytest.raises(EEVEError, match="did not write; choose another"):
        begin(ground, thesis)
    assert [each.name for each in thesis.iterdir()] == ["chapter.txt"]
    with pytest.raises(EEVEError, match="has rows of new tokens already"):
        begin(ground, tmp_path / "again", base=started)
    few = write(tmp_path / "few.jsonl", 2, documents=3)
    with pytest.raises(EEVEError, match="too little text"):
        begin(ground, tmp_path / "again", texts=[str(few)])
    with pytest.raises(EEVEError, match="no tokenizer of ours"):
        calibration.start(str(ground / "base"), str(ground / "base"), [str(few)], tmp_path / "again")
    (tmp_path / "of_others").mkdir()
    (tmp_path / "of_others/table.csv").write_text("text\n")
    monkeypatch.setattr(command, "load", lambda *_: pytest.fail("the model was read first"))
    for name in ("none.jsonl", "of_others"):
        with pytest.raises(EEVEError, match=f"no text in .*{name}; text is read from"):
            begin(ground, tmp_path / "again", texts=[str(tmp_path / name)])
    assert not (tmp_path / "again").exists()


def test_run_again_it_replaces_what_it_wrote_and_keeps_what_it_did_not(ground, tmp_path):
    begin(ground, tmp_path / "started")
    (tmp_path / "started" / "notes.md").write_text("mine")
    arguments = ["start", str(ground / "base"), "--tokenizer", str(ground / "tokenizer"), "--tokens", "2000"]
    for each in ("text", "held_out"):
        arguments += ["--text", str(ground / f"{each}.jsonl")]
    done = CliRunner().invoke(eeve, [*arguments, "--output", str(tmp_path / "started")])
    assert done.exit_code == 0, done.output
    assert "bits per byte before" in done.output and "base_model" in done.output
    assert (tmp_path / "started" / "notes.md").read_text() == "mine"
    assert len(json.loads((tmp_path / "started/eeve_start.json").read_text())["texts"]) == 2
