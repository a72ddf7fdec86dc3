"""Continued BPE: merges learned on top of the tokens that the base makes of the corpus's words.

The other way to find candidates (arXiv 2512.03989). The card's intermediate tokenizer learns from characters
and knows nothing of the base; here training goes on where the base's own merges end, so that every
candidate is made of tokens that the base really leaves side by side.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer

from eeve_axolotl.tokenizer import intermediate
from eeve_axolotl.tokenizer.base import extended_state, model_of, tokens_of_words
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.spelling import BOUNDARY


def learn(
    state: dict, table: WordTable, letters: list[str], vocab_size: int, memory_mb: int | None = None
) -> list[str]:
    """Tokens that merges of the base's tokens and of `letters` make, the first merges first.

    Args:
        state: the base tokenizer's JSON.
        letters: tokens that come before any merge, in the vocabulary's alphabet, fragments included.
        vocab_size: how many tokens to learn, the alphabet of base tokens and letters included.
        memory_mb: learn from the most frequent words, as many as a trainer keeps in this memory; None for all.
    """
    first_id = max(state["model"]["vocab"].values()) + 1
    model = model_of(extended_state(state, letters, first_id))
    least, words = table.fitting(memory_mb)
    return intermediate.merged(_runs(model, table, least), {}, vocab_size, words)


def _runs(model: Tokenizer, table: WordTable, least: int) -> Iterator[tuple[list[str], int]]:
    """The base's tokens side by side that may merge: all of the scripts, a boundary only at the start.

    Words that occur less than `least` times are left out.
    """
    splitter = table.splitter
    boundary = splitter.spelling.spell(BOUNDARY)
    is_part: dict[str, bool] = {boundary: True}
    for tokens, count in tokens_of_words(model, table.frequent(least)):
        run: list[str] = []
        for token in tokens:
            if token not in is_part:
                is_part[token] = splitter.is_span(token)
            if run and (not is_part[token] or token.startswith(boundary)):
                if len(run) > 1:
                    yield run, count
                run = []
            if is_part[token]:
                run.append(token)
        if len(run) > 1:
            yield run, count
