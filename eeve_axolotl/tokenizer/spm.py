"""A SentencePiece `tokenizer.model` beside the fast tokenizer, for programs that read nothing else (llama.cpp).

SentencePiece's BPE merges whichever neighbours make the piece of the highest score. The new tokens get scores
below all others, in their order. Every split of a new token is a merge of the fast tokenizer (base.py), so both
nearly always make the same tokens. Where a token can be made of overlapping parts they may not. So it is tried.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer.spelling import BOUNDARY

LOG = logger("tokenizer")
_CHARACTERS = 1_000_000  # of the corpus that both are tried on
_RANDOM = 2_000  # texts


def verified(
    file: Path, base: Tokenizer, state: dict, tokens: list[str], corpus: Iterable[str]
) -> bytes | None:
    """The base's SentencePiece model with `tokens` appended, if it cuts text as the extended fast tokenizer does.

    Args:
        file: the base's model.
        base: the base's fast tokenizer.
        state: the extended fast tokenizer's JSON.
        tokens: the new tokens, in id order.
        corpus: documents, to try both on.

    Returns None, and says why in the log, if it does not, or if the model cannot be extended.
    """
    before = file.read_bytes()
    after = extended(before, tokens, base)
    if after is None:
        LOG.warning(
            "no tokenizer.model is written: the pieces of %s are not the base's tokens, or it is no BPE", file
        )
        return None
    fast = Tokenizer.from_str(json.dumps(state))
    text, tried = difference((before, after), (base, fast), tokens, corpus)
    if text is not None:
        LOG.warning("no tokenizer.model is written: SentencePiece segments %r differently", text[:80])
        return None
    LOG.info("tokenizer.model segments like the fast tokenizer: %s texts", f"{tried:,}")
    return after


def extended(model: bytes, tokens: list[str], base: Tokenizer) -> bytes | None:
    """A SentencePiece `model` with `tokens` appended.

    Returns None if its pieces are not the tokens of `base`, or if it is no BPE.
    """
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

    proto = ModelProto.FromString(model)
    tokens_of_base = {n: token for token, n in base.get_vocab().items()}
    same = len(proto.pieces) == len(tokens_of_base) and all(
        _is(piece, tokens_of_base.get(n)) for n, piece in enumerate(proto.pieces)
    )
    if proto.trainer_spec.model_type != TrainerSpec.BPE or not same:
        return None
    score = np.float32(min(piece.score for piece in proto.pieces))
    for token in tokens:  # each lower by 1, or by one step of 32-bit numbers where these lie further apart
        score = min(score - np.float32(1), np.nextafter(score, np.float32(-np.inf)))
        proto.pieces.add(piece=token, score=float(score))
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return proto.SerializeToString(deterministic=True)


def _is(piece: Any, token: str | None) -> bool:
    """Whether a piece is the fast tokenizer's token; Gemma's calls the byte of a tab by its character."""
    return piece.piece == token or (piece.type == piece.BYTE and token == chr(int(piece.piece[3:5], 16)))


def difference(
    models: tuple[bytes, bytes], fast: tuple[Tokenizer, Tokenizer], tokens: list[str], corpus: Iterable[str]
) -> tuple[str | None, int]:
    """The first text that SentencePiece and the fast tokenizer segment differently, and how many were tried.

    Texts of which the two make different tokens before the extension (a space at the start) are not held against it.

    Args:
        models, fast: each before and after the extension.
        corpus: documents, of which the first million characters are tried; beside them each new token, alone,
            in a sentence and beside its neighbours, and random text of tokens, letters and all of Unicode.
    """
    from sentencepiece import SentencePieceProcessor

    slow = [SentencePieceProcessor(model_proto=model) for model in models]
    number = 0
    texts = _texts(tokens, corpus)
    while batch := list(islice(texts, 1000)):
        number += len(batch)
        encoded = [each.ids for each in fast[1].encode_batch_fast(batch, add_special_tokens=False)]
        for text, ours, theirs in zip(batch, encoded, slow[1].encode(batch), strict=True):
            if ours != theirs:
                if slow[0].encode(text) == fast[0].encode(text, add_special_tokens=False).ids:
                    return text, number
    return None, number


def _texts(tokens: list[str], corpus: Iterable[str]) -> Iterator[str]:
    read = [token.replace(BOUNDARY, " ") for token in tokens]
    # Not at the start: a space there is where the two differ anyway.
    yield from (f"A{text}" for text in read)
    yield from (f"A{text}.{text}{text}, the" for text in read)
    yield from ("A" + "".join(pair) for pair in pairwise(read))
    dice = random.Random(0)
    letters = sorted({letter for text in read for letter in text})
    for _ in range(_RANDOM):
        pieces = (
            dice.choice(read), "".join(dice.choices(letters, k=4)), dice.choice(" \n.,a1"), "  ",
            chr(dice.choice((dice.randrange(0x80), dice.randrange(0xD800), dice.randrange(0xE000, 0x110000)))),
        )  # fmt: skip
        yield "A" + "".join(dice.choices(pieces, k=dice.randint(1, 12)))
    left = _CHARACTERS
    for text in corpus:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return
