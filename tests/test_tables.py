"""Tables in text."""

import pytest

from eeve_axolotl.tables import escaped, markdown_table, plain_table


def test_a_markdown_table_says_which_columns_are_numbers():
    table = markdown_table(["stage", "loss"], [["1", 2.5]], right=[1])
    assert table == "| stage | loss |\n| --- | --: |\n| 1 | 2.5 |"


def test_a_table_can_be_read_as_text_too():
    table = markdown_table(["", "loss"], [["stage 1", "2"]], right=[1], aligned=True)
    assert table.splitlines() == ["|         | loss |", "| ------- | ---: |", "| stage 1 |    2 |"]


def test_narrow_columns_keep_a_rule_that_markdown_knows():
    assert markdown_table(["a"], [["b"]], aligned=True).splitlines() == ["| a   |", "| --- |", "| b   |"]


def test_a_pipe_does_not_end_a_cell():
    assert markdown_table(["token"], [[escaped("a|b")]]).endswith("| a\\|b |")


def test_plain_columns_are_as_wide_as_their_widest_cell():
    assert plain_table([["stage", "1"], ["hours", "10.5"]], right=[1]) == "stage     1\nhours  10.5"


@pytest.mark.parametrize(
    "table", [lambda: markdown_table(["a"], [["b", "c"]]), lambda: plain_table([["a"], []])]
)
def test_a_row_of_another_length_is_an_error(table):
    with pytest.raises(ValueError):
        table()
