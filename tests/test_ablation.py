"""The ablation: an arm with a toy's budget trains as it says and is made once, and the report tells what its lines say."""

from __future__ import annotations

import gzip
import json

import pytest

from benchmarks import ablation, ablation_bases, new_rows
from benchmarks.ablation_arms import all_arms, masks_off
from benchmarks.ablation_report import interval, report
from eeve_axolotl.stages import STAGES
from tests.conftest import ROOT


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """Stories in place of the text, fewer new tokens, and no text kept from another test."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "demo"))
    from stories import generate

    for code in ("ko", "en"):
        stories = list(generate(code, 0, 900, False))
        with gzip.open(tmp_path / f"train_{code}.jsonl.gz", "wt", encoding="utf-8") as lines:
            for at in range(0, len(stories), 3):
                lines.write(json.dumps({"text": " ".join(stories[at : at + 3])}) + "\n")
    monkeypatch.setattr(new_rows, "CORPORA", tmp_path)
    monkeypatch.setattr(new_rows, "NEW_TOKENS", 60)
    for cached in (ablation_bases.documents, ablation_bases.held_out):
        cached.cache_clear()
    yield tmp_path
    for cached in (ablation_bases.documents, ablation_bases.held_out):
        cached.cache_clear()


@pytest.mark.slow
def test_arms_of_a_toy_are_trained_once_and_told(corpora, tmp_path, capsys):
    results = tmp_path / "results" / "ablation.jsonl"
    arguments = ["--base", "toy", "--directory", str(tmp_path / "kept"), "--results", str(results), "--json"]
    arguments += ["--seeds", "1", "--rate", "0.003", "--arms", "no extension", "seven"]
    ablation.main(arguments)
    kept = results.read_text()
    lines = {line["arm"]: line for line in map(json.loads, kept.splitlines())}
    seven, control = lines["seven"], lines["no extension"]
    assert seven["tokens"] == control["tokens"] == ablation.TOKENS["toy"]
    assert control["accuracy_on_new"] is None and control["new"] == 0
    assert seven["new"] > 0.1 and seven["korean_tokens"] < control["korean_tokens"]
    for line in lines.values():
        assert line["curve"][-1]["korean"] < line["curve"][0]["korean"], "it learned nothing"
        assert line["curve"][-1]["flops"] == pytest.approx(line["flops"])
    ablation.main(arguments)
    assert results.read_text() == kept, "a finished run was made again"
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["arms"]["toy: seven"]["korean"][0] == seven["korean"]


@pytest.mark.slow
def test_an_arm_by_the_command_reads_the_same_windows(corpora, tmp_path):
    results = tmp_path / "ablation.jsonl"
    arguments = ["--base", "toy", "--directory", str(tmp_path / "kept"), "--results", str(results)]
    arguments += ["--seeds", "1", "--rate", "0.003", "--tokens", "512"]
    ablation.main([*arguments, "--arms", "6 alone", "6 alone, by command"])
    mine, users = map(json.loads, results.read_text().splitlines())
    assert users["arm"] == "6 alone, by command"
    for alike in ("tokens", "flops", "rate", "korean_tokens"):
        assert users[alike] == mine[alike]
    start, end = users["curve"]
    assert start["korean"] == mine["curve"][0]["korean"]
    assert end["korean"] < start["korean"] and end["flops"] == users["flops"]
    assert abs(end["korean"] - mine["curve"][-1]["korean"]) < 0.5 * (start["korean"] - end["korean"])


def test_no_document_is_in_two_parts(corpora):
    parts = [
        set(new_rows.documents(language, part)) for language in new_rows.LANGUAGES for part in new_rows.PARTS
    ]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_every_arm_reads_a_seed_s_text_in_the_same_order(corpora):
    def first(seed: int, english: float) -> list[str]:
        documents = ablation_bases.text(seed, english)
        return [next(documents) for _ in range(30)]

    assert first(1, 1 / 6) == first(1, 1 / 6) != first(2, 1 / 6)
    assert all(document.isascii() is False for document in first(1, 0.0))
    korean = [document for document in first(1, 1 / 6) if not document.isascii()]
    assert korean == first(1, 0.0)[: len(korean)]


def test_the_arms_are_what_their_names_say():
    arms = all_arms()
    assert [stage.name for stage in arms["seven without 3"].stages] == list("124567")
    assert [name for name, arm in arms.items() if arm.by_command] == [
        "seven, by command",
        "6 alone, by command",
    ]
    assert not arms["no extension"].extended
    off = masks_off(STAGES[5])
    assert off.trains_in_words() == "all input + all output"
    assert {arm.family for arm in arms.values()} <= set(arms)


def line(arm: str, seed: int, korean: float, english: float = 1.0, flops: float = 1e9) -> dict:
    made = {"base": "small", "arm": arm, "seed": seed, "budget": 10, "rate": 0.1, "part": "final"}
    return made | {
        "tokens": 10,
        "flops": flops,
        "seconds": 1.0,
        "korean": korean,
        "english": english,
        "accuracy_on_new": None,
        "curve": [
            {"tokens": 0, "flops": 0, "korean": 3.0, "english": english},
            {"tokens": 10, "flops": flops, "korean": korean, "english": english},
        ],
    }


def test_the_report_gives_known_means_and_paired_intervals(tmp_path):
    """Seeds differ by far more than the arms do, and only the pairing shows which arm is better."""
    seeds = [1.0, 2.0, 3.0]
    lines = [line("seven", n, each, 1.0 + 0.1 * n) for n, each in enumerate(seeds)]
    lines += [line("6 alone", n, each + 0.1 + 0.01 * n, 1.1) for n, each in enumerate(seeds)]
    lines += [line("masks off", 0, 5.0)]
    lines += [line("seven", 7, 99.0) | {"part": "choose"}, line("seven", 8, 99.0) | {"budget": 11}]
    picture = tmp_path / "picture.png"
    found = report(lines, None, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert found["arms"]["seven"]["seeds"] == 3
    # t of 2 degrees of freedom is 4.303; the deviation is 1, and of the differences .01
    assert found["arms"]["seven"]["korean"] == pytest.approx(
        [2.0, 2.0 - 4.303 / 3**0.5, 2.0 + 4.303 / 3**0.5]
    )
    decided = {(each["arm"], each["against"]): each for each in found["decisions"]}
    seven = decided["seven", "6 alone"]
    half = 4.303 * 0.01 / 3**0.5
    assert seven["korean"] == pytest.approx([-0.11, -0.11 - half, -0.11 + half])
    assert (seven["korean_verdict"], seven["english_verdict"]) == ("better", "no difference")
    masks = decided["seven", "masks off"]
    assert masks["seeds"] == 1 and masks["korean_verdict"] == "one seed"


def test_an_arm_that_costs_more_is_compared_where_its_flops_are_those_of_seven():
    """Of 4e9 FLOPs a fourth: from 3.0 at the start to 2.0 at the end, it is at 2.75 there."""
    lines = [line("seven", n, 2.5) for n in range(3)] + [line("full", n, 2.0, flops=4e9) for n in range(3)]
    decided = {each["against"]: each for each in report(lines)["decisions"]}
    assert decided["full"]["korean"][0] == pytest.approx(0.5)
    equal = decided["full, at the FLOPs of seven"]
    assert equal["korean"][0] == pytest.approx(-0.25) and equal["korean_verdict"] == "better"


def test_an_interval_of_one_value_has_no_ends():
    assert interval([2.0]) == [2.0, None, None]
