"""Cutting a text into words: the units inside which the merges that make new tokens can happen.

BPE only ever makes tokens of its vocabulary. Where no token, old or new, holds two characters side by
side, no merge crosses the cut between them, and what stands left and right of it is tokenized
independently. So the distinct words, each encoded once and weighted by its count, give the counts of the whole
corpus, exactly, for every token that has a letter of the target scripts. The rest of the text need not be kept.

base.py        what every splitter offers, and what both kinds share
plain.py       bases whose alphabet is characters (SentencePiece's kind)
byte_level.py  bases whose alphabet is bytes (GPT-2, Llama-3, Qwen)
joined.py      words joined where a token may reach over the space between them
"""

from __future__ import annotations

from collections.abc import Iterable

from eeve_axolotl.tokenizer.spelling import is_byte_level
from eeve_axolotl.tokenizer.words.base import WordSplitter, letter_ranges
from eeve_axolotl.tokenizer.words.byte_level import ByteLevelWordSplitter
from eeve_axolotl.tokenizer.words.plain import PlainWordSplitter

__all__ = ["ByteLevelWordSplitter", "PlainWordSplitter", "WordSplitter", "letter_ranges", "word_splitter"]


def word_splitter(state: dict, scripts: Iterable[str]) -> WordSplitter:
    """The splitter for a base tokenizer.

    Args:
        state: the base tokenizer's JSON.
        scripts: Unicode script names of the new tokens.

    Raises EEVEError for a script that Unicode does not know.
    """
    kind = ByteLevelWordSplitter if is_byte_level(state) else PlainWordSplitter
    return kind(state, scripts)
