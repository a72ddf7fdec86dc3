"""The compiled code does what the same in plain Python does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eeve_axolotl.tokenizer.kernels import merges, words
from eeve_axolotl.tokenizer.kernels.alphabet import Alphabet, alphabet

# Words found, counted, sorted and spelled: in text of few characters, so that words and their beginnings repeat.

BOUNDARY = "▁"
CHARACTERS = "aé한🙂" + BOUNDARY  # of one, two, three and four bytes
BEGINNINGS = st.sampled_from(["aaa", "aaaa", "aaaaa", "aaaaaa"])  # of each other
TEXT = st.lists(st.text(alphabet=CHARACTERS + " \n.", max_size=4) | BEGINNINGS, max_size=20).map("".join)
DOCUMENTS = st.lists(TEXT, min_size=1, max_size=6)
# Whether a boundary begins words, how many symbols make a number, and how many bits a symbol has: words of more than
# two numbers are long, and with 62 bits their hashes have the other 2 only, so that many are the same.
ALPHABETS = st.tuples(
    st.booleans(), st.sampled_from([(None, None), (1, None), (2, None), (3, None), (1, 62)])
)


@lru_cache  # a table of all code points each
def made(with_boundary: bool, each: int | None = None, bits: int | None = None) -> Alphabet:
    codes = np.array(sorted(map(ord, CHARACTERS)))
    some = alphabet(codes, ord(BOUNDARY), ord(" ")) if with_boundary else alphabet(codes)
    return some._replace(each=each or some.each, bits=bits or some.bits)


def words_of(text: str, with_boundary: bool) -> list[str]:
    """What `words.count` finds, character by character."""
    if with_boundary:
        text = text.replace(" ", BOUNDARY)
    found, word = [], ""
    for before, character in pairwise(["", *text, ""]):
        begins = with_boundary and character == BOUNDARY and before != BOUNDARY
        if word and (begins or character == "" or character not in CHARACTERS):
            found.append(word)
            word = ""
        if character and character in CHARACTERS:
            word += character
    # Boundaries without anything after them are no word.
    return [word for word in found if not with_boundary or word.strip(BOUNDARY)]


class Table:
    """A table that is given more room when the compiled code asks for it."""

    def __init__(self, some: Alphabet, room: int):
        self.alphabet, self.room, self.progress = some, room, words.Progress()
        self.table = np.zeros((room * 8 // 5 + 1, 4), dtype=np.int64)
        self.arena = np.zeros(2 * room, dtype=some.symbols.dtype)
        self.outcomes: Counter[int] = Counter()

    def add(self, documents: list[str]) -> None:
        text = np.array([ord(character) for document in documents for character in document + "\n"])
        ends = np.cumsum([len(document) + 1 for document in documents])
        now = self.progress._replace(character=0, document=0, begun=-words.SECTION)
        outcome = None
        while outcome != words.DONE:
            outcome, now = words.count(
                text.astype(np.uint32), ends, self.alphabet, now, self.table, self.room, self.arena
            )
            self.outcomes[outcome] += 1
            if outcome == words.FULL:
                self.room = now.needed
                larger = np.zeros((2 * self.room + 1, 4), dtype=np.int64)
                words.move(self.table, larger, self.alphabet)
                self.table = larger
            if outcome != words.DONE:
                self.arena = np.resize(self.arena, 2 * len(self.arena) + 2 * len(text))
        self.progress = now

    def rows(self) -> list[tuple[str, int, int]]:
        """The words in the order that the compiled code sorts them in, with their counts and documents."""
        entries, keys = words.entries(self.table, self.arena, self.progress.words, self.alphabet)
        order = np.argsort(keys)
        entries, keys = entries[order], keys[order]
        words.sort_equal(self.table, self.arena, entries, keys, self.alphabet)
        text, ends = words.spell(self.table, self.arena, entries, self.alphabet)
        spelled = [text[a:b].tobytes().decode() for a, b in pairwise(ends)]
        counts, documents = self.table[entries, words.COUNT], self.table[entries, words.SEEN] >> 32
        return list(zip(spelled, counts.tolist(), documents.tolist(), strict=True))


@settings(max_examples=200, deadline=None)
@given(batches=st.lists(DOCUMENTS, min_size=1, max_size=3), how=ALPHABETS, room=st.integers(1, 100))
def test_words_are_counted_sorted_and_spelled_as_python_does(batches, how, room):
    begins_with_boundary, numbers = how
    table = Table(made(begins_with_boundary, *numbers), room)
    counts: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for batch in batches:
        table.add(batch)
        for document in batch:
            found = words_of(document, begins_with_boundary)
            counts.update(found)
            documents.update(set(found))
    assert table.rows() == [(word, counts[word], documents[word]) for word in sorted(counts)]


def test_a_full_table_and_a_full_arena_are_said_and_lose_nothing():
    short, long = "aé한🙂"[:2], "é" * (3 * words.SECTION)
    table = Table(made(True), room=1)
    table.add([f"{short} {short}"])
    assert table.outcomes == {words.FULL: 1, words.DONE: 1}
    table.arena = np.zeros(2 * words.SECTION, dtype=table.arena.dtype)  # enough for what fits into a section
    table.room = words.SECTION
    larger = np.zeros((2 * table.room, 4), dtype=np.int64)
    words.move(table.table, larger, table.alphabet)
    table.table = larger
    table.add([f"{short} {long} {short}"])
    assert table.outcomes[words.LONG] == 1
    assert table.rows() == [(short, 2, 2), (BOUNDARY + short, 2, 2), (BOUNDARY + long, 1, 1)]


def test_long_words_of_one_hash_are_told_apart():
    some = ["".join(letters) for n in range(3, 8) for letters in product("aé", repeat=n)]
    table = Table(made(False, 1, 62), room=1000)
    table.add(["\n".join(reversed(some))])  # one that begins another comes after it
    assert table.rows() == [(word, 1, 1) for word in sorted(some)]


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_the_size_in_utf8_is_pythons(text):
    codes = np.array([ord(character) for character in text], dtype=np.uint32)
    assert words.utf8_size(codes) == len(text.encode("utf-8", "surrogatepass"))


# Words cut into tokens.

LETTERS = "abé한"
CODES = np.full(0x110000, -1, dtype=np.int32)  # the token of each letter
CODES[[ord(letter) for letter in LETTERS]] = range(len(LETTERS))


def parts_of(token: str, known: Iterable[str]) -> list[tuple[str, str]]:
    return [(token[:n], token[n:]) for n in range(1, len(token)) if token[:n] in known and token[n:] in known]


class Bpe:
    """A vocabulary whose tokens are single letters, and longer ones by every merge that makes them."""

    def __init__(self, longer: list[str], inactive: set[int]):
        self.tokens = [*LETTERS, *(token for token in dict.fromkeys(longer) if len(token) > 1)]
        ids = {token: n for n, token in enumerate(self.tokens)}
        self.merges = [
            (ids[left], ids[right], ids[token])
            for token in self.tokens
            for left, right in parts_of(token, ids)
        ]
        self.pairs = {(left, right): (rank, token) for rank, (left, right, token) in enumerate(self.merges)}
        self.active = np.array([n not in inactive for n in range(len(self.tokens))], dtype=np.bool_)
        self.vocabulary = merges.vocabulary(CODES, self.pairs)

    def cut(self, word: str, merged: Counter[int]) -> list[int]:
        """A word's tokens, -bytes for a character that is none; counts the merges."""
        tokens = []
        for letter in word:
            known = letter in LETTERS and self.active[LETTERS.index(letter)]
            tokens.append(LETTERS.index(letter) if known else -len(letter.encode()))
        while True:
            possible = [
                (self.pairs[pair][0], n)
                for n, pair in enumerate(pairwise(tokens))
                if pair in self.pairs and self.active[self.pairs[pair][1]]
            ]
            if not possible:
                return tokens
            rank, n = min(possible)
            merged[rank] += 1
            tokens[n : n + 2] = [self.merges[rank][2]]


BPES = st.builds(
    Bpe,
    st.lists(st.text(alphabet=LETTERS, min_size=2, max_size=4), max_size=12),
    st.sets(st.integers(0, 15), max_size=5),
)
WORDS = st.dictionaries(
    st.text(alphabet=LETTERS + "🙂x", min_size=1, max_size=10),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(bpe=BPES, some=WORDS, whole=st.booleans())
@example(
    bpe=Bpe([LETTERS[0] * 2, LETTERS[:2]], set()), some={LETTERS[0] * 3 + LETTERS[1]: (1, 1)}, whole=False
)  # leftmost
def test_words_are_cut_as_python_does(bpe, some, whole):
    tokens, total = len(bpe.tokens), len(bpe.merges)
    zeros = [np.zeros(tokens, dtype=np.int64) for _ in range(3)]
    none = [np.full(tokens, -1, dtype=np.int64) for _ in range(2)]
    sums = merges.Sums(*zeros, *none, np.zeros(total, dtype=np.int64))
    right = merges.Sums(*(each.copy() for each in sums))
    as_whole = [
        bpe.tokens.index(word) if whole and word in bpe.tokens and bpe.active[bpe.tokens.index(word)] else -1
        for word in some
    ]
    encoded = [word.encode() for word in some]
    given_words = merges.Words(
        text=np.frombuffer(b"".join(encoded), dtype=np.uint8),
        ends=np.cumsum([0, *map(len, encoded)], dtype=np.int32),
        whole=np.array(as_whole if whole else [], dtype=np.int32),
        counts=np.array([count for count, _ in some.values()], dtype=np.int64),
        documents=np.array([documents for _, documents in some.values()], dtype=np.int64),
        first_row=7,
    )
    scratch = np.empty((2, max(map(len, some))), dtype=np.int32)
    fallback = merges.cut(given_words, bpe.vocabulary, bpe.active, sums, scratch)

    single_bytes = 0
    for row, (word, (count, documents)) in enumerate(some.items(), start=7):
        merged: Counter[int] = Counter()
        at_once = as_whole[row - 7]
        cut = [at_once] if at_once >= 0 else bpe.cut(word, merged)
        for rank, times in merged.items():
            right.merged[rank] += times * count
        if at_once < 0:
            for letter in filter(LETTERS.__contains__, word):
                right.offers[LETTERS.index(letter)] += (not bpe.active[LETTERS.index(letter)]) * count
        single_bytes -= count * sum(token for token in cut if token < 0)
        for token in filter(lambda token: token >= 0, cut):
            right.counts[token] += count
            if count > right.most[token]:
                right.most[token], right.row[token] = count, row
        for token in {token for token in cut if token >= 0}:
            right.documents[token] += documents
        for pair in pairwise(cut):
            if pair in bpe.pairs:
                right.offers[bpe.pairs[pair][1]] += count
    assert fallback == single_bytes
    for name, ours, theirs in zip(merges.Sums._fields, sums, right, strict=True):
        assert ours.tolist() == theirs.tolist(), name


@settings(max_examples=200, deadline=None)
@given(bpe=BPES)
def test_every_merge_is_found_and_no_other(bpe):
    for left in range(-1, len(bpe.tokens)):
        for right in range(-1, len(bpe.tokens)):
            slot = merges.find(left, right, bpe.vocabulary.keys)
            found = None if slot < 0 else tuple(bpe.vocabulary.values[slot].tolist())
            assert found == bpe.pairs.get((left, right))


@settings(max_examples=200, deadline=None)
@given(bpe=BPES, data=st.data())
def test_what_is_dropped_together_never_takes_the_last_way_to_make_what_is_needed(bpe, data):
    tokens = len(bpe.tokens)
    order = data.draw(st.permutations([n for n in range(tokens) if bpe.active[n]]))
    made = data.draw(st.lists(st.integers(0, 9), min_size=tokens, max_size=tokens))
    most, limit = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 9))

    def ways(active: np.ndarray) -> list[int]:
        found = [0] * tokens
        for left, right, token in bpe.merges:
            found[token] += bool(active[left] and active[right] and active[token])
        return found

    left, right, makes = np.array(bpe.merges, dtype=np.int64).reshape(-1, 3).T.copy()
    taken, active = np.zeros(len(order), dtype=np.bool_), bpe.active.copy()
    merges.take(
        np.array(order, dtype=np.int64), most, limit, np.array(made), active,
        np.array(ways(bpe.active)), merges.merges(left, right, makes, tokens), taken,
    )  # fmt: skip

    first, now, dropped = ways(bpe.active), bpe.active.copy(), []
    for token in order:
        before = ways(now)
        cost = 0
        for *halves, target in bpe.merges:
            # Made in one way only, through this token, where there were several at first; once for each of its halves.
            if now[halves].all() and now[target] and before[target] == 1 and first[target] != 1:
                cost += made[target] * halves.count(token)
        if len(dropped) < most and cost <= limit:
            dropped.append(token)
            now[token] = False
    assert [token for token, was in zip(order, taken, strict=True) if was] == dropped
    assert active.tolist() == now.tolist()
