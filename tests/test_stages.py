"""The table of stages against the paper's."""

import pytest

from eeve_axolotl.stages import STAGES, Layers, Rows, Stage

PAPER = {  # paper figure 4 and section 2.3, written out a second time on purpose
    1: ("new", "none", "frozen"),
    2: ("none", "new", "frozen"),
    3: ("new", "new", "frozen"),
    4: ("none", "all", "frozen"),
    5: ("new", "all", "frozen"),
    6: ("all", "all", "qlora"),
    7: ("none", "none", "qlora"),
}


def test_the_seven_stages_are_the_papers():
    table = {
        number: (stage.input_embeddings.value, stage.output_embeddings.value, stage.internal_layers.value)
        for number, stage in STAGES.items()
    }
    assert table == PAPER


def test_only_stages_2_and_4_need_no_backward_pass_through_the_layers():
    assert [number for number, stage in STAGES.items() if not stage.backward_through_layers] == [2, 4]


@pytest.mark.parametrize("number", STAGES)
def test_a_stage_number_is_only_a_name_for_its_three_words(number):
    from eeve_axolotl.args import EEVESettings

    words = dict(
        zip(("input_embeddings", "output_embeddings", "internal_layers"), PAPER[number], strict=True)
    )
    by_number, by_words = EEVESettings(stage=number).resolved(), EEVESettings(**words).resolved()
    assert (by_words.input_embeddings, by_words.output_embeddings, by_words.internal_layers) == (
        by_number.input_embeddings,
        by_number.output_embeddings,
        by_number.internal_layers,
    )


def test_a_stage_that_trains_nothing_says_so():
    assert not Stage("custom", Rows.NONE, Rows.NONE, Layers.FROZEN).trains_anything
