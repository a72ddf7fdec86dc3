"""Which tokens to add: the card's steps 1 to 7, on a table of words.

Candidates come from an intermediate BPE tokenizer of the corpus's words. What is counted is what the
target tokenizer really produces; what is too rare is dropped, what was dropped too early is added again,
and all is counted again, until nothing changes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import numpy as np
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import WhitespaceSplit

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer import continued
from eeve_axolotl.tokenizer.base import model_of
from eeve_axolotl.tokenizer.counting import WordTable
from eeve_axolotl.tokenizer.curation import Curation
from eeve_axolotl.tokenizer.letters import Letters, letters_of, unshared
from eeve_axolotl.tokenizer.segment import Counted, Segmenter

LOG = logger("tokenizer")


@dataclass(frozen=True)
class Candidate:
    """What became of one candidate: `reason` is None if it was chosen.

    Its counts are under the target tokenizer if it was chosen, else when all candidates were in; `word` is
    the most frequent word that has it (a row of the table, -1 for none).
    """

    token: str
    count: int
    documents: int
    reason: str | None
    word: int


@dataclass
class Selection:
    """The new tokens in id order, their counts under the target tokenizer, and what each round did.

    fragments: those of the tokens that begin a letter and do not end it (byte-level bases).
    """

    tokens: list[str]
    counts: dict[str, int]
    rounds: list[dict] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    fragments: list[str] = field(default_factory=list)


def train_intermediate(table: WordTable, vocab_size: int, most_words: int | None = None) -> list[str]:
    """Tokens of a BPE tokenizer of `vocab_size` trained on the table's words (step 1): characters, then merges in order.

    Its trainer keeps its words in memory, about 1 kB each: `most_words` leaves out the rarest.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False)
    # The trainer counts words itself: give each as often as it occurs, in lines of bounded length.
    lines = (
        " ".join([word] * min(1000, count - n))
        for word, count in table.spans(most_words)
        for n in range(0, count, 1000)
    )
    tokenizer.train_from_iterator(lines, trainer)
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]


def count_tokens(state: dict, table: WordTable) -> Counter[str]:
    """How often each token of the tokenizer `state` occurs in the table's words, as it really segments them.

    For tokens with a letter of the target scripts this is how often the corpus has them. Memory is
    bounded by a batch of the table.
    """
    return tokens_of(model_of(state), table)


def tokens_of(model: Tokenizer, table: WordTable) -> Counter[str]:
    """The same for a bare model, as `model_of` makes it."""
    totals = np.zeros(model.get_vocab_size(with_added_tokens=False), dtype=np.int64)
    for words, counts in table.batches():
        ids = [encoding.ids for encoding in model.encode_batch_fast(words, add_special_tokens=False)]
        weights = np.repeat(np.array(counts, dtype=np.int64), [len(each) for each in ids])
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=len(weights))
        if flat.max(initial=0) >= len(totals):  # ids need not be without gaps
            totals = np.pad(totals, (0, flat.max() + 1 - len(totals)))
        np.add.at(totals, flat, weights)
    return Counter({model.id_to_token(int(i)): int(totals[i]) for i in np.flatnonzero(totals)})


def select(
    state: dict,
    table: WordTable,
    *,
    first_id: int,
    new_tokens: int | None,
    intermediate_vocab_size: int,
    min_count: int,
    max_rounds: int,
    method: Literal["eeve", "continued"] = "eeve",
    share_fragments: bool = False,
    most_words: int | None = None,
    curation: Curation | None = None,
    multiple: int = 1,
    threads: int = 1,
) -> Selection:
    """Choose the new tokens for the base tokenizer `state` (steps 1 to 7).

    Args:
        first_id: id of the first new token.
        new_tokens: how many to add at most; None for all above `min_count`.
        min_count: a token seen less often is dropped (step 5), a letter seen as often is added (step 6).
        method: where candidates come from: an intermediate tokenizer, or merges learned on top of the base's.
        share_fragments: add letters of a byte-level base even where it changes the tokens of other text.
        most_words: of so many of the most frequent words the candidates are made; None for all.
        curation: what a person allows and refuses.
        multiple: fewer are added, so that base and new tokens together are a multiple of it.
        threads: how many count.

    Raises EEVEError if nothing is frequent enough, or `max_rounds` did not reach the fixpoint.
    """
    base = state["model"]["vocab"]
    curation = curation or Curation()
    segmentation = table.segmentation
    spell, read = segmentation.spelling.spell, segmentation.spelling.read
    letters = letters_of(state, table)
    if not share_fragments:
        letters = unshared(letters, segmentation)
    frequent = [letter for letter, count in letters.counts.items() if count >= min_count]
    allowed = list(map(spell, curation.needed()))
    fragments = letters.needed([*frequent, *allowed])
    if method == "continued":
        learned = continued.learn(state, table, [*fragments, *frequent], intermediate_vocab_size, most_words)
    else:
        tokens = train_intermediate(table, intermediate_vocab_size, most_words)
        learned = [spell(token) for token in tokens if len(token) > 1]
    # Letters first: merges need them.
    proposed = [
        token for token in dict.fromkeys([*fragments, *frequent, *learned, *allowed]) if token not in base
    ]
    refused = {
        token: reason
        for token in proposed
        if token not in fragments and (reason := curation.refusal(read(token)))
    }
    most = _rounded(new_tokens, first_id, multiple)
    kept = {*map(spell, curation.allow), *allowed, *fragments} - base.keys()
    # Merges in the order that they were learned, and more of them in place of those that are dropped.
    limit = len(proposed) if most is None or method == "eeve" else most
    while True:
        search = _Search(
            Segmenter(state, proposed[:limit]),
            table,
            most=most,
            first_id=first_id,
            multiple=multiple,
            min_count=max(min_count, 1),
            letters=letters,
            kept=kept & set(proposed[:limit]),
            reasons=refused,
            threads=threads,
        )
        selection = search.run(max_rounds)
        short = (most or 0) - len(selection.tokens)
        if short < multiple or limit >= len(proposed):
            return _without_idle_fragments(selection, letters, fragments)
        limit += short


def _without_idle_fragments(selection: Selection, letters: Letters, fragments: list[str]) -> Selection:
    """Fragments whose letters were all dropped lead nowhere: without them."""
    idle = set(fragments) - set(letters.needed(selection.tokens))
    selection.tokens = [token for token in selection.tokens if token not in idle]
    for token in idle:
        selection.counts.pop(token, None)
    selection.fragments = [token for token in fragments if token not in idle]
    return selection


class _Search:
    """The rounds: drop what is too rare or too much, add what would save more, until neither changes anything."""

    def __init__(
        self, segmenter: Segmenter, table: WordTable, *, most, first_id, multiple, min_count, letters, kept,
        reasons, threads,
    ):  # fmt: skip
        self.segmenter, self.table, self.threads = segmenter, table, threads
        self.most, self.first_id, self.multiple, self.min_count = most, first_id, multiple, min_count
        tokens = segmenter.candidates
        self.reasons: dict[str, str] = dict(reasons)
        self.open = np.array([token not in reasons for token in tokens], dtype=np.bool_)
        self.kept = segmenter.mask(kept)
        self.letter = np.array([token in letters.counts for token in tokens], dtype=np.bool_)
        # What a letter saves: it would fall to its bytes.
        self.letter_worth = np.array(
            [_LETTER * letters.counts[token] * letters.saves.get(token, 0) for token in tokens],
            dtype=np.int64,
        )
        self.rounds: list[dict] = []

    def run(self, max_rounds: int) -> Selection:
        everything = self._count(np.ones_like(self.open))
        chosen = self.open.copy()
        settled: tuple[np.ndarray, Counted] | None = None
        at_once, added = len(chosen), 0
        offered = np.array([], dtype=np.int64)
        vain = np.zeros_like(chosen)  # alone, they did not help to fill the budget
        while True:
            if len(self.rounds) == max_rounds:
                raise EEVEError(f"the selection did not settle in {max_rounds} rounds; raise max_rounds")
            counted = self._count(chosen)
            dropped = self._drop(chosen, counted)
            self._log(chosen, counted, dropped, added)
            added = 0
            if len(dropped):
                chosen[dropped] = False
                continue
            if not chosen.any():
                raise EEVEError(
                    f"no new token occurs {self.min_count:,} times in the corpus; lower min_count (or min_count_per_gb)"
                )
            if settled is None or self._better(chosen, counted.total, *settled):
                settled = (chosen.copy(), counted)
            else:  # what was added saved nothing: back, and less of it at once
                chosen = settled[0].copy()
                if at_once == 1 and vain.sum() < _FEW and self._room(chosen):
                    vain[offered] = True
                else:
                    at_once //= 4
            offered = self._offer(chosen, settled[1], vain)[:at_once]
            if not len(offered):
                return self._selection(settled, everything)
            at_once = len(offered)
            chosen[offered] = True
            added = len(offered)

    def _better(self, chosen: np.ndarray, total: int, before: np.ndarray, counted: Counted) -> bool:
        """Whether an exchange saves enough; what only fills the budget need save no more than a token."""
        enough = 0 if chosen.sum() > before.sum() else _GAIN * counted.total
        return total < counted.total - enough

    def _count(self, chosen: np.ndarray) -> Counted:
        return self.segmenter.count(self.table, chosen, self.threads)

    def _worth(self, counted: Counted) -> np.ndarray:
        """How many tokens the corpus would take more without each: a letter falls to bytes, a word to two parts,
        and what is made from it in no other way falls too."""
        return np.where(self.letter, np.maximum(self.letter_worth, counted.worth), counted.worth)

    def _drop(self, chosen: np.ndarray, counted: Counted) -> np.ndarray:
        """Candidates to drop: too rare, or over the budget, the least useful first, the last first among equals.

        Step by step, counted anew each time: what a dropped token covered goes to its parts, which may
        then be frequent enough. A letter that is frequent enough in the corpus is not too rare.
        """
        worth = self._worth(counted)
        rare = chosen & ~self.letter & ~self.kept & (counted.counts < self.min_count)
        rare = self.segmenter.cheapest_relief(
            counted, rare, chosen & ~self.letter & ~self.kept, self.min_count
        )
        left = int(chosen.sum() - rare.sum())
        excess = int(rare.sum()) + max(0, left - (left if self.most is None else self.most))
        if not excess and chosen.any():
            excess = (self.first_id + left) % self.multiple
        can = np.flatnonzero(chosen & ~self.kept)
        order = can[np.lexsort((-can, worth[can], ~rare[can]))]
        n = _step(excess)
        limit = worth[order[:n]][~rare[order[:n]]].max(initial=0)
        dropped = self.segmenter.droppable(chosen, order, counted.made, limit, n)
        for n in dropped:
            count = counted.counts[n]
            why = "others save more"
            if rare[n]:
                why = (
                    f"{count} < {self.min_count}"
                    if count < self.min_count
                    else "leaves a part of it too rare"
                )
            self.reasons[self.segmenter.candidates[n]] = f"round {len(self.rounds) + 1}: {why}"
        return dropped

    def _offer(self, chosen: np.ndarray, counted: Counted, vain: np.ndarray) -> np.ndarray:
        """Candidates that would save more than what they would replace, or fill what room there is; the best first."""
        gain = np.where(self.letter, self.letter_worth, counted.offers)
        can = np.flatnonzero(self.open & ~chosen & ~vain & (gain >= self.min_count))
        can = can[np.lexsort((can, -gain[can]))]
        if self.most is None:
            return can
        room = self._room(chosen)
        worth = np.sort(self._worth(counted)[chosen & ~self.kept])
        n = min(len(can) - room, len(worth))
        if n <= 0:
            return can[:room]
        better = gain[can[room : room + n]] > worth[:n]
        return can[: room + (n if better.all() else int(better.argmin()))]

    def _room(self, chosen: np.ndarray) -> int:
        """How many tokens the budget has left."""
        return 0 if self.most is None else max(0, self.most - int(chosen.sum()))

    def _log(self, chosen: np.ndarray, counted: Counted, dropped: np.ndarray, added: int) -> None:
        number = len(self.rounds) + 1
        tokens = int(chosen.sum())
        self.rounds.append(
            {
                "round": number,
                "tokens": tokens,
                "added": added,
                "dropped": len(dropped),
                "total": counted.total,
            }
        )
        LOG.info(
            "round %d: %s tokens (%s added), %s dropped; the corpus's words take %s",
            number, f"{tokens:,}", f"{added:,}", f"{len(dropped):,}", f"{counted.total:,}",
        )  # fmt: skip

    def _selection(self, settled: tuple[np.ndarray, Counted], everything: Counted) -> Selection:
        chosen, counted = settled
        selection = Selection([], {}, self.rounds)
        for n, token in enumerate(self.segmenter.candidates):
            source = counted if chosen[n] else everything
            reason = None if chosen[n] else self.reasons.get(token, "saves nothing")
            if chosen[n]:
                selection.tokens.append(token)
                selection.counts[token] = int(counted.counts[n])
            selection.candidates.append(
                Candidate(token, int(source.counts[n]), int(source.documents[n]), reason, int(source.rows[n]))
            )
        return selection


_FEW = 32  # tokens that are dropped in one round
# A letter counts for so many: text that is not in the corpus has words it lacks, spelled in its letters.
_LETTER = 2
_GAIN = 1e-4  # the share of all tokens that an exchange must save to be one


def _step(excess: int) -> int:
    """How many of `excess` tokens to drop in one round: a third, or all of a few."""
    return excess if excess <= _FEW else -(-excess // 3)


def _rounded(new_tokens: int | None, first_id: int, multiple: int) -> int | None:
    """A budget that makes the vocabulary a multiple.

    Raises EEVEError if there is none.
    """
    if new_tokens is None:
        return None
    rounded = new_tokens - (first_id + new_tokens) % multiple
    if rounded <= 0:
        raise EEVEError(
            f"no vocabulary of {first_id + 1:,} to {first_id + new_tokens:,} tokens is a multiple of {multiple}; "
            "raise new_tokens or lower round_vocab_to"
        )
    return rounded
