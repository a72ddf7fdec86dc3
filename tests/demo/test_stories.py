"""The demo's text: the same every time, varied, and never leaking what is held out."""

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "examples" / "demo"))

from stories import generate


@pytest.mark.parametrize("language", ["ko", "en", "parallel"])
def test_the_same_seed_gives_the_same_stories_and_another_seed_others(language):
    first = list(generate(language, seed=1, documents=50))
    assert first == list(generate(language, seed=1, documents=50))
    assert not set(first) & set(generate(language, seed=2, documents=50))


@pytest.mark.parametrize("language", ["ko", "en"])
def test_no_held_out_story_is_a_training_story(language):
    trained = set(generate(language, seed=1, documents=20_000))
    held_out = set(generate(language, seed=1, documents=2_000, held_out=True))
    assert len(held_out) > 1_900
    assert not held_out & trained


@pytest.mark.parametrize("language", ["ko", "en"])
def test_every_sentence_of_every_plot_can_be_told(language):
    for text in generate(language, seed=3, documents=3_000):
        assert "{" not in text and "  " not in text
        assert text[-1] in '.!?"', text


def test_some_hundreds_of_korean_words_are_each_seen_often():
    text = " ".join(generate("ko", seed=1, documents=5_000))  # about 2 MB
    words = Counter(re.findall(r"[가-힣]+", text))
    assert sum(count >= 50 for count in words.values()) >= 500


def test_stories_are_not_one_story():
    texts = list(generate("ko", seed=1, documents=2_000))
    assert len(set(texts)) > 1_950
    openings = Counter(text[:12] for text in texts)
    assert openings.most_common(1)[0][1] < 100


def test_a_parallel_story_tells_one_plot_twice():
    for text in generate("parallel", seed=1, documents=100):
        korean, english = text.split("\n")
        assert re.search("[가-힣]", korean) and not re.search("[가-힣]", english)


def test_the_command_writes_json_lines(tmp_path):
    output = tmp_path / "stories.jsonl"
    script = ROOT / "examples" / "demo" / "make_stories.py"
    command = [sys.executable, script, "--language", "ko", "--documents", "5", "--output", output]
    subprocess.run(command, check=True)
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["text"] for record in records] == list(generate("ko", seed=0, documents=5))
