"""Which tokens to add: the card's steps 1 to 7, on a table of words.

Candidates come from an intermediate BPE tokenizer of the corpus's words. What is counted is what the
target tokenizer really produces; what is too rare is dropped, what is missing and frequent is added,
and all is counted again, until nothing changes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import WhitespaceSplit

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer.base import extended_state, model_of
from eeve_axolotl.tokenizer.counting import WordTable
from eeve_axolotl.tokenizer.words import BOUNDARY

LOG = logger("tokenizer")


@dataclass
class Selection:
    """The new tokens in id order, their counts under the target tokenizer, and what each round did."""

    tokens: list[str]
    counts: dict[str, int]
    rounds: list[dict] = field(default_factory=list)


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
    most_words: int | None = None,
) -> Selection:
    """Choose the new tokens for the base tokenizer `state` (steps 1 to 7).

    Args:
        first_id: id of the first new token.
        new_tokens: how many to add at most, the most frequent; None for all above `min_count`.
        min_count: a token seen less often is dropped (step 5), a letter seen as often is added (step 6).
        most_words: of so many of the most frequent words the candidates are made; None for all.

    Raises EEVEError if nothing is frequent enough, or `max_rounds` did not reach the fixpoint.
    """
    base = state["model"]["vocab"]
    letters = Counter()
    for span, count in table.spans():
        for letter in span.lstrip(BOUNDARY):
            letters[letter] += count
    frequent = [
        letter for letter, count in letters.most_common() if letter not in base and count >= min_count
    ]
    candidates = [
        token
        for token in train_intermediate(table, intermediate_vocab_size, most_words)
        if token not in base and len(token) > 1
    ]
    order = {token: n for n, token in enumerate(frequent + candidates)}  # letters first: merges need them
    chosen = set(order)
    selection = Selection([], {})
    for number in range(1, max_rounds + 1):
        tokens = sorted(chosen, key=order.__getitem__)
        counts = count_tokens(extended_state(state, tokens, first_id), table)
        # A letter is kept while the corpus has it often enough, whether or not it stands alone in a token now.
        rare = {token for token in tokens if counts[token] < max(min_count, 1)} - set(frequent)
        surplus = max(len(chosen) - len(rare) - (new_tokens or len(chosen)), 0)
        # Step by step, the least useful first, counted anew each time: what a dropped token covered goes to
        # its parts, which may then be frequent enough.
        ranked = sorted(
            chosen, key=lambda token: (token not in rare, _worth(token, counts, letters), -order[token])
        )
        dropped = set(ranked[: _step(len(rare) + surplus)])
        selection.rounds.append({"round": number, "tokens": len(tokens), "dropped": len(dropped)})
        LOG.info("round %d: %s tokens, %s dropped", number, f"{len(tokens):,}", f"{len(dropped):,}")
        if not dropped:
            selection.tokens = tokens
            selection.counts = {token: counts[token] for token in tokens}
            if not tokens:
                raise EEVEError(
                    f"no new token occurs {min_count:,} times in the corpus; lower min_count (or min_count_per_gb)"
                )
            return selection
        chosen -= dropped
    raise EEVEError(f"the selection did not settle in {max_rounds} rounds; raise max_rounds")


def _step(excess: int) -> int:
    """How many of `excess` tokens to drop in one round: a third, or all of a few."""
    return excess if excess <= 32 else -(-excess // 3)


def _worth(token: str, counts: Counter[str], letters: Counter[str]) -> int:
    """How many tokens the corpus would take more without this one: a letter falls to its bytes, a word to two parts."""
    if len(token) == 1:
        return letters[token] * (len(token.encode()) - 1)
    return counts[token]
