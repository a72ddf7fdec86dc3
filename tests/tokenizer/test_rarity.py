"""What is said of new tokens below the threshold, and of a threshold that is off."""

import json

import pytest

from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.tokenizer.test_byte_level import KINDS
from tests.tokenizer.test_counting import write

TEXT = "뷁쀍하 쀍뷁 " * 40 + "뷁하 "  # the longer tokens leave nothing of the letters alone


def built(base, directory, **keys) -> tuple[dict, str]:
    output = directory / "extended"
    settings = TokenizerSettings(
        base=str(base), output=str(output), corpus=[Source(path=str(write(directory / "a.jsonl", [TEXT])))],
        **{"new_tokens": 30, "intermediate_vocab_size": 800, **keys},
    )  # fmt: skip
    return build(settings), (output / "report" / "report.md").read_text(encoding="utf-8")


def test_letters_below_the_threshold_are_counted_and_told(base_tokenizer_directory, tmp_path, caplog):
    caplog.set_level("INFO")
    manifest, report = built(base_tokenizer_directory, tmp_path, min_count=5)
    rare = manifest["rare"]
    below = {token: count for token, count in manifest["counts"].items() if count < 5}
    assert all(len(token.lstrip("▁")) == 1 for token in below) and below
    assert rare["letters"] == len(below) and rare["others"] == rare["allowed"] == 0
    assert rare["letters_never_alone"] == sum(not count for count in below.values()) > 0
    told = f"produced less than 5 times: {rare['letters']} letters"
    assert told in report and told in caplog.text
    assert json.loads((tmp_path / "extended" / "eeve_tokenizer.json").read_text())["rare"] == rare


def test_fragments_and_what_is_allowed_are_told_apart(tmp_path):
    KINDS["llama3"]().save_pretrained(tmp_path / "base")
    (tmp_path / "allow.txt").write_text("안녕\n", encoding="utf-8")
    manifest, report = built(tmp_path / "base", tmp_path, min_count=5, allow=str(tmp_path / "allow.txt"))
    rare = manifest["rare"]
    below = sum(count < 5 for count in manifest["counts"].values())
    assert sum(rare.values()) - rare["letters_never_alone"] == below
    assert rare["beginnings_of_letters"] and rare["allowed"] + rare["others"]
    assert "beginnings of letters, which lead to these" in report and "that lists allow" in report


@pytest.mark.parametrize("keys, warned", [({}, True), ({"min_count_per_gb": 1e6}, True), ({"min_count": 1}, False),
                                          ({"min_count_per_gb": 0}, False), ({"min_count_per_gb": 3e6}, False)])  # fmt: skip
def test_a_threshold_that_is_off_is_told(keys, warned, caplog):
    from eeve_axolotl.tokenizer.rarity import warn_if_off

    settings = TokenizerSettings(base="x", output="y", corpus=[Source(path="z")], **keys)
    warn_if_off(settings, 1000)
    assert ("the threshold is off" in caplog.text) == warned


def test_a_small_corpus_at_the_card_s_rate_is_told(base_tokenizer_directory, tmp_path, caplog):
    built(base_tokenizer_directory, tmp_path)
    assert "60 times for each GB is 4.1e-05 times in a corpus of 0.0 MB: the threshold is off" in caplog.text
