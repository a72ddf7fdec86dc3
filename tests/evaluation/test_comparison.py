"""Two models side by side: the difference, its interval over documents, and what cannot be paired."""

from __future__ import annotations

import json
import random

import pytest
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.comparison import compare, find, interval
from tests.report.pipeline import make


def figures(bits: list[float], sizes: list[int], sha256: str = "a") -> dict:
    return {
        "bits_per_byte": sum(bits) / sum(sizes),
        "documents": {"bits": bits, "bytes": sizes, "sha256": sha256},
    }


def drawn(shift: float, noise: float, documents: int = 60) -> tuple[dict, dict]:
    """Two models whose bits differ by `shift` a byte and, document by document, by `noise` more or less."""
    chance = random.Random(0)
    sizes = [chance.randint(50, 500) for _ in range(documents)]
    hard = [chance.gauss(2.0, 0.5) for _ in sizes]  # documents differ far more than the models do
    first = [size * (level + shift + chance.gauss(0, noise)) for size, level in zip(sizes, hard, strict=True)]
    second = [size * level for size, level in zip(sizes, hard, strict=True)]
    return figures(first, sizes), figures(second, sizes)


@pytest.mark.parametrize(("shift", "verdict"), [(-0.05, "first"), (0.05, "second"), (0.0, "no difference")])
def test_a_difference_is_one_where_the_interval_leaves_zero_out(shift, verdict):
    first, second = drawn(shift, noise=0.05)
    (found,) = compare({"Korean": first}, {"Korean": second})
    assert found.verdict == verdict
    low, high = found.interval
    assert low < found.difference < high
    assert found.difference == pytest.approx(first["bits_per_byte"] - second["bits_per_byte"])


def test_documents_are_paired_so_that_hard_ones_do_not_widen_the_interval():
    first, second = drawn(-0.05, noise=0.05)
    low, high = compare({"Korean": first}, {"Korean": second})[0].interval
    shuffled = second["documents"]
    bits, sizes = shuffled["bits"][::-1], shuffled["bytes"][::-1]
    of_others = [
        each / size * own for each, size, own in zip(bits, sizes, first["documents"]["bytes"], strict=True)
    ]
    wide = interval(first["documents"]["bits"], of_others, first["documents"]["bytes"])
    assert (wide[1] - wide[0]) > 3 * (high - low)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 100 comparisons of models that differ by nothing, the interval leaves zero out in few."""
    missed = 0
    for seed in range(100):
        chance = random.Random(seed)
        sizes = [chance.randint(50, 500) for _ in range(40)]
        first = [size * chance.gauss(2.0, 0.1) for size in sizes]
        second = [size * chance.gauss(2.0, 0.1) for size in sizes]
        low, high = interval(first, second, sizes, resamples=500)
        missed += not low <= 0 <= high
    assert missed <= 14  # 5 are expected; more than 14 by chance once in 10,000


def test_what_cannot_be_paired_has_no_verdict():
    first, second = drawn(-0.5, noise=0.01)
    without = {"bits_per_byte": 2.0}
    assert "an earlier version" in compare({"Korean": without}, {"Korean": second})[0].verdict
    second["documents"]["sha256"] = "b"
    assert "different documents" in compare({"Korean": first}, {"Korean": second})[0].verdict
    few = figures([1.0] * 5, [1] * 5)
    assert "fewer than 10" in compare({"Korean": few}, {"Korean": few})[0].verdict
    with pytest.raises(EEVEError, match="no text in common"):
        compare({"Korean": first}, {"English": second})


def with_documents(directory, shift: float):
    """The pipeline's evaluations with figures of 20 documents."""
    for path in (directory / "evaluation").glob("*.json"):
        found = json.loads(path.read_text())
        for name, each in found["texts"].items():
            bits = [100 * (each["bits_per_byte"] + shift + 0.001 * (n % 3)) for n in range(20)]
            each.update(figures(bits, [100] * 20, sha256=name))
        path.write_text(json.dumps(found))
    return directory


def test_two_pipelines_are_compared_by_the_command(tmp_path):
    first = with_documents(make(tmp_path / "a"), 0.0)
    second = with_documents(make(tmp_path / "b", done=3, evaluated=(-1, 0, 1, 2, 3)), 0.0)
    printed = CliRunner().invoke(eeve, ["compare", str(first), str(second), "--json"])
    assert printed.exit_code == 0, printed.output
    found = json.loads(printed.output)
    assert found["first"]["name"].endswith("stage 7") and found["second"]["name"].endswith("stage 3")
    assert found["first"]["tokens"] > found["second"]["tokens"] > 0
    assert found["texts"]["Korean"]["verdict"] == "first"  # four stages further: 0.4 bits less
    assert found["texts"]["Korean"]["difference"] == pytest.approx(-0.4)
    assert found["texts"]["English"]["verdict"] == "no difference"
    words = CliRunner().invoke(eeve, ["compare", str(first), str(second), "--model", "stage 3"])
    assert words.exit_code == 0 and "no difference" in words.output


def test_a_model_that_is_not_there_is_told_with_those_that_are(tmp_path):
    output = make(tmp_path, evaluated=(-1, 3))
    with pytest.raises(EEVEError, match="it has those of base, stage 3"):
        find(output, "stage 9")
    with pytest.raises(EEVEError, match="no model of .* is evaluated"):
        find(make(tmp_path / "other", evaluated=()))
    with pytest.raises(EEVEError, match="not the output of a pipeline"):
        find(tmp_path)


def test_a_file_of_figures_is_compared_with_a_pipeline(tmp_path):
    output = with_documents(make(tmp_path), 0.0)
    file = output / "evaluation" / "model7.json"
    assert compare(find(file).texts, find(output).texts)[0].difference == 0.0


def test_figures_that_do_not_fit_each_other_or_cannot_be_are_told(tmp_path):
    first, second = drawn(0.1, noise=0.01, documents=20), drawn(0.1, noise=0.01, documents=30)
    assert "different documents" in compare({"Korean": first[0]}, {"Korean": second[0]})[0].verdict
    first[0]["documents"]["bytes"] = [0] * 20  # no document is empty: bits per byte would be NaN
    file = tmp_path / "figures.json"
    file.write_text(json.dumps({"name": "a", "texts": {"Korean": first[0]}}))
    with pytest.raises(EEVEError, match="documents.bytes"):
        find(file)


def test_a_model_cannot_be_chosen_in_files_of_one_each(tmp_path):
    output = with_documents(make(tmp_path), 0.0)
    file = output / "evaluation" / "model7.json"
    printed = CliRunner().invoke(eeve, ["compare", str(file), str(file), "--model", "stage 3"])
    assert printed.exit_code == 1 and "leave it out" in printed.output
    printed = CliRunner().invoke(eeve, ["compare", str(file), str(output), "--model", "stage 3"])
    assert printed.exit_code == 0, printed.output
