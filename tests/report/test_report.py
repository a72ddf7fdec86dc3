"""The report's tables, plots and files, from a made-up pipeline's directory."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from eeve_axolotl import report
from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.report.collect import collect
from tests.faults.grounds import plant, unharmed
from tests.report.pipeline import NEW, STEPS, TOKENS_PER_STEP, bits, evaluation, make

PLOTS = ("loss", "time", "bits", "norms", "neighbours")
MODELS = ["base", "extended", *(f"stage {number}" for number in range(1, 8))]


def table(markdown: str, *head: str) -> list[list[str]]:
    """The rows of the table whose header begins with `head`."""
    lines = markdown.splitlines()
    first = next(number for number, line in enumerate(lines) if cells(line)[: len(head)] == list(head))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def markdown(output) -> str:
    return (output / "report" / "report.md").read_text(encoding="utf-8")


def files(output) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "report").iterdir()}


def test_stages_stand_in_order_with_their_tokens_and_losses(complete):
    rows = table(markdown(complete), "stage", "trains")
    assert [row[0] for row in rows] == list("1234567")
    for number, row in enumerate(rows, start=1):
        assert row[2:4] == [f"{STEPS * number:,}", f"{STEPS * number * TOKENS_PER_STEP:,}"]
        window = min(20, STEPS * number // 10)  # means: of the first and of the last losses
        for cell, steps in (
            (row[5], range(1, window + 1)),
            (row[6], range(STEPS * number + 1)[-window:]),
        ):
            mean = sum(math.exp(-step / 10) for step in steps) / window
            assert float(cell) == pytest.approx(6 - 0.5 * number + mean, abs=0.001)
        assert float(row[5]) > float(row[6])
    assert rows[0][1] == "new input"
    assert rows[6][1] == "layers by QLoRA"


def test_bits_per_byte_of_every_model_and_text(complete):
    rows = table(markdown(complete), "model", "Korean, bits per byte")
    assert [row[0] for row in rows] == MODELS
    for position, row in enumerate(rows, start=-1):
        assert row[1:3] == [f"{bits(name, position):.3f}" for name in ("Korean", "English")]
    assert rows[0][-1] == "—"  # the base is not measured against itself here
    assert rows[-1][-1] == "100.0%"


def test_the_base_has_no_new_rows_and_predicts_no_new_tokens(complete):
    norms = table(markdown(complete), "model", "input embeddings, old rows")
    assert norms[0][1:] == ["0.8 ± 0.05", "—", "0.8 ± 0.05", "—"]
    assert norms[2][2] == "0.45 ± 0.1"
    predicted = table(markdown(complete), "model", "new tokens to predict")
    assert predicted[0] == ["base", "—", "—", "—", "—"]
    assert predicted[4] == ["stage 3", "500", "30.0%", "35.0%", "12.0%"]


def test_neighbours_before_and_after_keep_their_hangul(complete):
    rows = table(markdown(complete), "new token", "id", "extended", "stage 7")
    assert [(row[0].strip("`"), int(row[1])) for row in rows] == list(NEW.items())
    assert rows[0][2] == "`▁school` 0.30, `▁sky` 0.30"
    assert rows[0][3] == "`▁school` 0.65, `▁sky` 0.65"


def test_samples_cannot_break_the_table(complete):
    (row,) = table(markdown(complete), "prompt", "base", "stage 7")
    wrote = r"토끼가 \<s\> {} \| 살았어요. ⏎ End"
    assert row == ["**옛날에**", wrote.format(-1), f"{wrote.format(7)} (70% new tokens)"]
    rows = table(markdown(complete), "model", "prompt", "continuation")
    assert [row[0] for row in rows] == MODELS[1:-1]
    assert rows[2][2] == wrote.format(2)


def test_frozen_parts_are_unchanged_and_a_change_is_shouted(complete, tmp_path):
    rows = table(markdown(complete), "stage", "part")
    assert {row[6] for row in rows} == {"unchanged"}
    output = make(tmp_path, done=2)
    path = output / "joint" / "stage2" / "eeve_stage.json"
    record = json.loads(path.read_text())
    record["fingerprint_after"]["input_embeddings"] = "dd" * 16
    record["moved"] = {"input_embeddings": [5]}
    path.write_text(json.dumps(record))
    report.write(output)
    rows = table(markdown(output), "stage", "part")
    assert [row[6] for row in rows] == ["unchanged", "unchanged", "**CHANGED**", "unchanged"]


def test_settings_that_differ_stand_apart_and_secrets_nowhere(complete):
    text = markdown(complete)
    alike = dict(table(text[text.index("## Settings") :], "all stages"))
    assert alike["`learning_rate`"] == "`4e-05`"
    assert dict(table(text, "all stages"))["`axolotl`"] == "`0.19.0`"
    (eeve_row,) = table(text, "", "stage 1")
    assert eeve_row[:3] == ["`eeve`", '`{"stage": 1}`', '`{"stage": 2}`']
    assert not any(b"a-secret" in content for content in files(complete).values())


def test_all_plots_are_beside_the_report_and_named_in_it(complete):
    assert re.findall(r"\]\((\w+)\.png\)", markdown(complete)) == [
        "bits",
        *(each for each in PLOTS if each != "bits"),
    ]  # on the first screen
    for name in PLOTS:
        assert (complete / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_shown_as_missing(unfinished):
    text = markdown(unfinished)
    stages = table(text, "stage", "trains")
    assert [row[1] == "not done" for row in stages] == [False] * 4 + [True] * 3
    assert all(row[2:] == ["—"] * 7 for row in stages[4:])
    models = table(text, "model", "Korean, bits per byte")
    assert [row[0] for row in models] == MODELS
    assert [row[0] for row in models if row[1] == "—"] == [f"stage {number}" for number in (2, 4, 5, 6, 7)]
    assert "- no evaluation of stage 2, stage 4\n" in text
    assert "stage 5 is not done" in text
    assert "Missing: stage 5, stage 6, stage 7." in text


def test_nothing_evaluated_and_nothing_trained_is_a_report_too(tmp_path):
    output = make(tmp_path, done=0, evaluated=())
    shutil.rmtree(output / "tokenizer")
    written = report.write(output)
    assert "no model has been evaluated" in written.missing
    assert "the tokenizer has no eeve_tokenizer.json" in written.missing
    assert set(files(output)) == {"report.md", "report.html", "README.md"}
    assert "\n0 of 7 stages were trained.\n" in markdown(output)


def test_a_stage_without_history_has_no_tokens_rather_than_none(tmp_path):
    output = make(tmp_path, done=3)
    (output / "joint" / "stage2" / "eeve_history.json").unlink()
    written = report.write(output)
    assert "stage 2 has no history: its loss, tokens and time are not known" in written.missing
    row = table(markdown(output), "stage", "trains")[1]
    assert row[:7] == ["2", "new output", "80", "—", "—", "—", "—"]
    assert "and 3 of 7 stages were trained.\n" in markdown(output)  # on nobody knows how many tokens


def test_models_of_ones_own_are_sorted_by_position(tmp_path):
    output = make(tmp_path, evaluated=(-1, 0, 1, 2, 3))
    own = {**evaluation(2), "name": "stage 2, half way", "position": 1.5}
    (output / "evaluation" / "own.json").write_text(json.dumps(own))
    names = [each.name for each in collect(output).evaluations]
    assert names == [*MODELS[:3], "stage 2, half way", *MODELS[3:]]


class Page(HTMLParser):
    """Tags, sources and links of a page; fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], set(), [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_but_itself(complete):
    text = (complete / "report" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.sources) == len(PLOTS)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert all(each.startswith("data:font/woff;base64,") for each in re.findall(r"url\((.{30})", text))
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert "▁$나무" in page.text and "토끼가 <s> 2 | 살았어요." in page.text


def test_written_again_it_is_the_same_bytes(complete):
    before = files(complete)
    (complete / ".report.unfinished").mkdir()  # left by a run that was killed
    report.write(complete)
    assert files(complete) == before
    assert not list(complete.glob(".report*"))


def test_written_again_it_leaves_what_others_put_beside_it(tmp_path):
    output = make(tmp_path, done=1, evaluated=())
    report.write(output)
    planted = plant(output / "report")
    report.write(output)
    assert unharmed(output / "report", planted)


def test_a_directory_that_is_no_pipelines_is_refused(tmp_path):
    result = CliRunner().invoke(eeve, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "is not the output of a pipeline" in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_report_directory_of_someone_elses_is_refused(tmp_path):
    output = make(tmp_path, done=1, evaluated=())
    (output / "report").mkdir()
    (output / "report" / "report.md").write_text("my own")
    with pytest.raises(EEVEError, match="not a report of ours"):
        report.write(output)
    assert files(output) == {"report.md": b"my own"}


@pytest.mark.parametrize("content", ["{", "[]", '{"runs": 3}', "{}"])
def test_a_broken_pipeline_file_is_named(tmp_path, content):
    (tmp_path / "eeve_pipeline.json").write_text(content)
    with pytest.raises(EEVEError, match=r"eeve_pipeline\.json"):
        report.write(tmp_path)


@pytest.mark.slow
def test_the_command_says_what_is_missing_and_loads_neither_axolotl_nor_torch(tmp_path):
    output = make(tmp_path, done=1, evaluated=(0,))
    code = (
        "import sys; from eeve_axolotl.cli import eeve; eeve(['report', sys.argv[1]], standalone_mode=False); "
        "print(sorted({'axolotl', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(output)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert "missing: no evaluation of base, stage 1" in lines
    assert any("report.html" in line for line in lines)


def test_the_first_screen_says_what_was_done_in_one_sentence_and_its_figures(complete):
    start = markdown(complete).split("\n## ")[0]
    assert (
        "4 Hangul tokens were added to the base model's, and 7 of 7 stages were trained on 2,293,760 tokens in"
        in start
    )
    rows = table(start, "", "base", "stage 7")
    assert rows[:2] == [
        ["Korean, tokens per character", "1.500", "0.900"],
        ["Korean, bits per byte", "2.000", "1.300"],
    ]
    assert "Frozen rows and layers are proven unchanged in 7 of the 7 stages that freeze any." in start
    assert "](bits.png)" in start


def test_the_first_screen_shouts_where_something_moved(tmp_path):
    output = make(tmp_path)
    path = output / "joint" / "stage2" / "eeve_stage.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "moved": {"input_embeddings": [3]}}))
    report.write(output)
    assert (
        "**Frozen rows and layers are proven unchanged in 6 of the 7 stages that freeze any.**"
        in markdown(output)
    )


def test_a_sentence_is_shown_as_both_tokenizers_cut_it(tmp_path):
    from tokenizers import Tokenizer, models

    def save(directory, vocab, merges):
        directory.mkdir(exist_ok=True)
        Tokenizer(models.BPE(vocab, merges)).save(str(directory / "tokenizer.json"))

    output = make(tmp_path, base_model=str(tmp_path / "base"))
    letters = {"옛": 0, "날": 1, "에": 2}
    save(tmp_path / "base", letters, [])
    save(output / "tokenizer", {**letters, "옛날": 3}, [("옛", "날")])
    report.write(output)
    rows = table(markdown(output), "", "옛날에")
    assert rows == [["before: 3 tokens", "`옛` `날` `에`"], ["after: 2 tokens", "`옛날` `에`"]]

    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"text": "\n옛날옛날에. 토끼가 살았다."}) + "\n", encoding="utf-8")
    chain = json.loads((output / "eeve_pipeline.json").read_text())
    chain["texts"] = {"Korean": str(held_out), "English": str(tmp_path / "gone.jsonl")}
    (output / "eeve_pipeline.json").write_text(json.dumps(chain))
    # A sentence of the text says more than a prompt, and a text that is gone says nothing.
    report.write(output)
    rows = table(markdown(output), "", "옛날옛날에.")
    assert rows[1] == ["after: 3 tokens", "`옛날` `옛날` `에`"]


def test_the_page_brings_every_letter_that_is_not_latin(complete):
    """So that no machine draws boxes: each is in a font that is embedded."""
    from fontTools.ttLib import TTFont

    text = (complete / "report" / "report.html").read_text(encoding="utf-8")
    fonts = [base64.b64decode(each) for each in re.findall(r"data:font/woff;base64,([\w+/=]+)", text)]
    there = {code for font in fonts for code in TTFont(io.BytesIO(font)).getBestCmap()}
    shown = {ord(letter) for letter in Page(text).text if ord(letter) >= 0x250}
    assert {ord(letter) for letter in "옛날에토끼"} <= shown
    assert shown <= there
