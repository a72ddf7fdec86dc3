"""What benchmarks/new_rows.py tells of finished measurements."""

import pytest

from benchmarks.new_rows_report import DEFAULT_ROAD, report


def road(name: str, seed: int, korean: float, **keys) -> dict:
    curve = [{"steps": n, "flops": 1e12 * n, "korean": 3.0 - n / 10, "english": 1.0} for n in range(6)]
    rates = {"input_rate": 1e-3, "output_rate": 1e-4}
    line = {"base": "smollm2", "kind": "road", "road": name, "seed": seed, "part": "final", "steps": 5}
    return line | rates | {"korean": korean, "english": 1.5, "flops": 5e12, "curve": curve} | keys


UNTOUCHED = {
    "base": "smollm2",
    "kind": "untouched",
    "choose_korean": 2.5,
    "final_korean": 2.4,
    "final_english": 1.2,
}


def test_roads_are_told_over_seeds_and_paired_with_the_default():
    lines = [UNTOUCHED, road("share: 3", 9, 1.0, part="choose")]
    for seed, level in enumerate((2.0, 3.0, 4.0)):
        lines += [road(DEFAULT_ROAD, seed, level), road("share: 3", seed, level - 0.1 - 0.01 * seed)]
    found = report(lines)
    assert found["after"][DEFAULT_ROAD]["korean"][0] == 3.0
    assert found["after"][DEFAULT_ROAD]["english"] == [1.5, 1.5, 1.5]
    half = 4.303 * 0.01 / 3**0.5
    between = found["against_default"]["share: 3"]
    assert between["korean"] == pytest.approx([-0.11, -0.11 - half, -0.11 + half])
    assert (between["korean_verdict"], between["english_verdict"]) == ("better", "no difference")


def test_the_flops_to_come_near_the_base_are_read_off_the_curves():
    # 1.05 x 2.5 is 2.625: three quarters of the way from 2.7 (at 3e12) to 2.6 (at 4e12).
    found = report([UNTOUCHED, road("a", 0, 2.0)])
    assert found["to_105_percent"]["a"] == pytest.approx(3.75e12)
    assert report([UNTOUCHED | {"choose_korean": 2.0}, road("a", 0, 2.0)])["to_105_percent"]["a"] is None
    assert report([UNTOUCHED | {"choose_korean": 9.0}, road("a", 0, 2.0)])["to_105_percent"]["a"] == 0.0


def test_roads_of_other_numbers_of_steps_are_told_apart():
    lines = [
        UNTOUCHED,
        road(DEFAULT_ROAD, 0, 3.0),
        road("share: 3", 0, 2.5),
        road("share: 3", 0, 2.0, steps=9),
    ]
    found = report(lines)
    assert found["after"]["share: 3"]["korean"][0] == 2.5
    by_steps = found["by_base"]["smollm2"]["by_steps"]
    assert by_steps[9]["after"]["share: 3"]["korean"][0] == 2.0 and by_steps[9]["against_default"] == {
        "share: 3": {}
    }
    assert report([*lines, road(DEFAULT_ROAD, 0, 2.9, steps=9)])["after"]["share: 3"]["korean"][0] == 2.0
    longer = report([*lines, road(DEFAULT_ROAD, 0, 2.9, steps=99)])
    assert longer["after"]["share: 3"]["korean"][0] == 2.5 and longer["to_105_percent"][
        "share: 3"
    ] == pytest.approx(3.75e12)


def test_starts_are_told_without_roads():
    start = {"korean": 3.0, "english": 1.0, "mass": 0.5, "share": 0.8, "cost_flops": 0}
    lines = [{"base": "smollm2", "kind": "base", "korean": 2.5, "english": 1.1}]
    found = report([*lines, {"base": "smollm2", "kind": "start", "rule": "mean", **start}])
    assert found["start"] == {"mean": start} and found["after"] == {} == found["to_105_percent"]
    assert found["base"]["korean"] == 2.5 and set(found["by_base"]) == {"smollm2"}
