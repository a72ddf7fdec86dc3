"""The order in which a corpus is read: every pass once, the same from any position, whoever reads and however much."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from axolotl.utils.samplers.multipack import allocate_sequentially, pack_parallel

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.trainer.text_order import Cut, Part, Text

LENGTHS = np.random.RandomState(3).randint(1, 65, 500)
CUTS = {
    "packed": Cut(64),
    "packed in groups": Cut(64, group=37, most=3),
    "packed in turn": Cut(64, in_turn=True),
    "one by one": Cut(),
    "as the corpus has them": Cut(shuffled=False),
    "by length": Cut(by_length=8),
}
every_cut = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())


def text(lengths: np.ndarray = LENGTHS, seed: int = 42) -> Text:
    return Text(lengths, seed, "a corpus")


def taken(sequences, count: int | None = None) -> list[list[int]]:
    return list(itertools.islice(sequences, count))


def samples(sequences) -> list[int]:
    return list(itertools.chain.from_iterable(sequences))


@every_cut
def test_every_pass_reads_every_sample_once(cut):
    reading = text()
    start = reading.beginning(cut)
    both = reading.read(start)
    for passes in range(3):
        assert sorted(samples(taken(both, reading.beginning(cut, passes).of))) == list(range(len(LENGTHS)))


@pytest.mark.parametrize("cut", [CUTS["packed"], CUTS["one by one"], CUTS["by length"]])
def test_passes_differ_and_so_do_seeds(cut):
    first, second = (taken(text().read(text().beginning(cut, passes)), 50) for passes in (0, 1))
    other = taken(text(seed=43).read(text(seed=43).beginning(cut)), 50)
    assert first != second and first != other


@every_cut
def test_reading_on_from_a_position_is_reading_without_a_stop(cut):
    whole = taken(text().read(text().beginning(cut)), 1500)  # about three passes, or six of packed ones
    position, read = text().beginning(cut), []
    for count in (0, 1, 7, 200, 33, 512, 1, 700):
        reading = text()  # another process, which knows the position only
        part = json.loads(json.dumps(Part("a corpus", 42, position, position).as_mapping()))
        position = Part.read(part, "here").end
        read += taken(reading.read(position), count)
        position = reading.after(position, count)
    assert read == whole[: len(read)] and len(read) == 1454


@every_cut
def test_a_position_is_the_same_however_the_way_to_it_was_divided(cut):
    reading = text()
    one = reading.after(reading.beginning(cut), 960)
    many = reading.beginning(cut)
    for _ in range(60):
        many = reading.after(many, 16)
    assert one == many
    size = reading.beginning(cut).of
    assert reading.after(reading.beginning(cut), size) == reading.beginning(cut, 1)


@pytest.mark.parametrize("first, second", [*itertools.permutations(("packed", "one by one", "by length"), 2)])
def test_another_cut_reads_what_the_one_before_left_of_the_pass(first, second):
    reading = text()
    position = reading.after(reading.beginning(CUTS[first]), 61)
    read = samples(taken(reading.read(reading.beginning(CUTS[first])), 61))
    position = text().go_on(position, CUTS[second])
    read += samples(taken(text().read(position), 20))
    position = text().go_on(text().after(position, 20), Cut(128))  # and once more within the pass
    left = samples(taken(text().read(position), position.of))
    assert sorted(read + left) == list(range(len(LENGTHS)))
    after = text().after(position, position.of)
    assert (after.passes, after.sequences, after.before) == (1, 0, None)


def test_at_the_beginning_of_a_pass_another_cut_leaves_no_trace():
    position = text().beginning(CUTS["packed"], 2)
    assert text().go_on(position, CUTS["one by one"]) == text().beginning(CUTS["one by one"], 2)


def test_a_pass_that_is_cut_otherwise_than_it_was_is_not_gone_on_with():
    position = text().after(text().beginning(CUTS["packed"]), 5)
    with pytest.raises(EEVEError, match="its pass had .* sequences and is now cut into"):
        text(lengths=LENGTHS + 30).go_on(position, CUTS["packed"])


@pytest.mark.parametrize("group, most", [(10, 200), (100, 3), (777, 200), (100_000, 5)])
def test_samples_are_packed_as_axolotl_packs_them(group, most):
    lengths = np.random.RandomState(group).randint(1, 67, 5000)  # some do not fit
    ours = text(lengths).read(text(lengths).beginning(Cut(64, group, most, shuffled=False)))
    theirs = pack_parallel(
        lengths.astype(np.int32), bin_capacity=64, group_size=group, bin_size=most, num_processes=1
    )
    assert taken(ours, len(theirs)) == [list(each) for each in theirs]


def test_samples_are_packed_in_turn_as_axolotl_packs_them():
    lengths = np.random.RandomState(5).randint(1, 67, 5000)
    ours = text(lengths).read(text(lengths).beginning(Cut(64, in_turn=True, shuffled=False)))
    theirs, *_ = allocate_sequentially(lengths.astype(np.int32), rank=0, bin_capacity=64, num_ranks=1)
    assert taken(ours, len(theirs)) == [list(each) for each in theirs]


@pytest.mark.parametrize("cut", [CUTS["packed"], CUTS["packed in groups"], CUTS["packed in turn"]])
def test_a_packed_sequence_holds_no_more_than_its_tokens(cut):
    position = text().beginning(cut)
    packed = taken(text().read(position), position.of)
    assert max(LENGTHS[each].sum() for each in packed) <= 64
    assert max(map(len, packed)) <= cut.most


def test_a_text_without_samples_is_refused():
    with pytest.raises(EEVEError, match="has no text"):
        text(lengths=np.zeros(0, int))


@pytest.mark.parametrize(
    "spoilt", [{}, {"streamed": True}, {"to": None}, {"seed": "x"}, {"from": {"cut": {}}}]
)
def test_what_does_not_say_which_text_was_read_is_told(spoilt):
    start = text().beginning(Cut())
    whole = Part("a corpus", 42, start, start).as_mapping()
    assert Part.read(whole, "here").end == start
    with pytest.raises(EEVEError, match="there does not say which text was read"):
        Part.read({**whole, **spoilt} if spoilt.keys() & whole.keys() else spoilt, "there")
