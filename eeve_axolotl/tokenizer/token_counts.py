"""How often a tokenizer makes each token of a table of words, by the tokenizers library.

This is what a build is verified with: candidate_counts.py must have counted the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from eeve_axolotl.tokenizer.base import model_of
from eeve_axolotl.tokenizer.counting.table import WordTable


def count_tokens(state: dict, table: WordTable) -> Counter[str]:
    """How often each token of the tokenizer `state` (its JSON) occurs in the table's words.

    For tokens with a letter of the target scripts this is how often the corpus has them. Memory is
    bounded by a batch of the table.
    """
    return tokens_of(model_of(state), table)


def tokens_of(model: Tokenizer, table: WordTable) -> Counter[str]:
    """How often each token of a bare `model`, as `model_of` makes it, occurs in the table's words."""
    totals = np.zeros(model.get_vocab_size(with_added_tokens=False), dtype=np.int64)
    for words, counts in table.batches():
        ids = [encoding.ids for encoding in model.encode_batch_fast(words, add_special_tokens=False)]
        weights = np.repeat(np.array(counts, dtype=np.int64), [len(each) for each in ids])
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=len(weights))
        if flat.max(initial=0) >= len(totals):  # ids need not be without gaps
            totals = np.pad(totals, (0, flat.max() + 1 - len(totals)))
        np.add.at(totals, flat, weights)
    pieces = {i: piece for piece, i in model.get_vocab().items()}
    return Counter({pieces[int(i)]: int(totals[i]) for i in np.flatnonzero(totals)})


def unreachable(state: dict, tokens: Iterable[str]) -> list[str]:
    """Those of `tokens` that the tokenizer `state` does not produce even from their own text."""
    model = model_of(state)
    return [token for token in tokens if model.encode(token, add_special_tokens=False).tokens != [token]]
