"""New rows: which they are, and where they start (paper section 2.2).

Nothing here knows Axolotl. A tokenizer comes as a transformers fast tokenizer whose new tokens and
merges were appended to the base's (as `axolotl eeve tokenizer` writes it), or as added tokens.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.rows.sharded import gathered
from eeve_axolotl.tokenizer.spelling import BOUNDARY, byte_level_alphabet


def truncated(tokenizer, base_vocab_size: int) -> Tokenizer:
    """The base tokenizer, cut out of the extended one: ids, merges and added tokens below `base_vocab_size`.

    New merges come after all base merges, so what is left is the base tokenizer itself; no second
    tokenizer has to be found, and none can be the wrong one.

    Raises EEVEError if the tokenizer is not a fast BPE tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: dict[str, Any] = {"model": {"type": "a slow tokenizer"}}
    if backend is not None:
        state = json.loads(backend.to_str())
    model = state["model"]
    if model["type"] != "BPE":
        raise EEVEError(
            f"the tokenizer's model is {model['type']}, but subword initialisation needs a fast BPE "
            "tokenizer (tokenizer.json); use a base model with a BPE tokenizer"
        )
    vocab = {piece: i for piece, i in model["vocab"].items() if i < base_vocab_size}
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    model["vocab"] = vocab
    model["merges"] = [
        [left, right] for left, right in pairs if left in vocab and right in vocab and left + right in vocab
    ]
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < base_vocab_size]
    state["post_processor"] = None  # adds bos/eos, which are no subwords
    return Tokenizer.from_str(json.dumps(state))


def subwords(tokenizer, base_vocab_size: int) -> list[list[int] | None]:
    """For each id from `base_vocab_size` on, the subwords of its token under the base tokenizer.

    Returns a list of base ids for each, and None for an id that has no token.
    """
    base = truncated(tokenizer, base_vocab_size)
    unknown = base.token_to_id(getattr(base.model, "unk_token", None) or "")
    pieces = {i: piece for piece, i in tokenizer.get_vocab().items()}
    added = set(tokenizer.get_added_vocab().values())
    result: list[list[int] | None] = []
    for i in range(base_vocab_size, max(pieces, default=-1) + 1):
        if i not in pieces:
            result.append(None)
            continue
        if i in added:  # its text goes through the normaliser like any text
            ids = base.encode(pieces[i], add_special_tokens=False).ids
        else:  # a vocabulary entry is already in the model's own alphabet
            ids = [token.id for token in base.model.tokenize(pieces[i])]
        result.append([token for token in ids if token != unknown])
    return result


def first_character(ids: list[int], spell) -> list[int]:
    """The leading `ids` that spell the first character: a bare word boundary skipped, bytes kept together.

    `spell` maps an id to its bytes. This is the paper's "first subword" wherever that subword holds
    at least one whole character; a lone byte of a character that the base lacks says next to
    nothing about the token, and would be shared by thousands of them.
    """
    if len(ids) > 1 and spell(ids[0]) == b" ":
        ids = ids[1:]
    text = b""
    for count, token in enumerate(ids, start=1):
        text += spell(token)
        if _holds_a_character(text):
            return ids[:count]
    return ids


def _holds_a_character(text: bytes) -> bool:
    """Whether `text` begins with at least one complete UTF-8 character."""
    if not text:
        return False
    length = 1 if text[0] < 0xC0 else 2 if text[0] < 0xE0 else 3 if text[0] < 0xF0 else 4
    return len(text) >= length


def speller(base: Tokenizer):
    """A function from a base id to the bytes that the token stands for."""
    byte_level = '"ByteLevel"' in json.dumps(json.loads(base.to_str())["decoder"])
    alphabet = byte_level_alphabet() if byte_level else {}
    pieces = {i: piece for piece, i in base.get_vocab().items()}

    def spell(token: int) -> bytes:
        piece = pieces[token]
        if byte_level:
            return b"".join(bytes([alphabet[char]]) if char in alphabet else char.encode() for char in piece)
        if len(piece) == 6 and piece.startswith("<0x"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(BOUNDARY, " ").encode()

    return spell


@dataclass(frozen=True)
class InitReport:
    """What `initialise` did, for the log and the stage's record."""

    start: int
    stop: int
    input: str
    output: str
    distinct_output_rows: int
    without_subwords: int
    without_token: int = 0

    def __str__(self) -> str:
        rows = self.stop - self.start - self.without_token
        text = (
            f"initialised {rows:,} new rows ({self.start}..{self.stop - 1}): input rows {self.input} of "
            f"subwords, output rows {self.output}, of which {self.distinct_output_rows:,} start distinct"
        )
        if self.without_subwords:
            text += f"; {self.without_subwords} without subwords start at the mean of all base rows"
        if self.without_token:
            text += f"; {self.without_token} ids have no token and were left as they are"
        return text

    def as_dict(self) -> dict:
        """Plain values, for the record."""
        return asdict(self)


@torch.no_grad()
def initialise(
    model, tokenizer, base_vocab_size: int, start: int, output: str = "first_character"
) -> InitReport:
    """Set the rows of the tokens from id `start` on, in both embedding matrices. No other row is set.

    Args:
        model: a causal language model, which has a row for each of the tokenizer's ids.
        tokenizer: the extended fast tokenizer.
        base_vocab_size: ids below are the base tokenizer's.
        start: first row to set; rows between `base_vocab_size` and `start` are in the checkpoint already.
        output: rule for the output rows (see `args.InitSettings.output`).

    Means are computed in fp32 whatever the weights' type. A biased head's entries follow its rows.
    Source: paper section 2.2; the rules other than `first_subword` are this project's choice.
    """
    base = truncated(tokenizer, base_vocab_size)
    spell = speller(base)
    of_new = subwords(tokenizer, base_vocab_size)[start - base_vocab_size :]
    sources = {
        "mean": of_new,
        "first_subword": [ids and ids[:1] for ids in of_new],
        "first_character": [ids and first_character(ids, spell) for ids in of_new],
    }
    if output not in sources:
        raise EEVEError(f"output rows cannot start by {output!r}; choose one of {', '.join(sources)}")
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    matrices = {inputs.weight: sources["mean"]}
    if outputs is not None and outputs.weight is not inputs.weight:
        matrices[outputs.weight] = sources[output]
        if getattr(outputs, "bias", None) is not None:
            matrices[outputs.bias] = sources[output]
    with gathered(*matrices, modify=True):
        for matrix, rows_of_new in matrices.items():
            used = sorted({i for ids in rows_of_new for i in ids or ()})
            if used and not torch.isfinite(matrix[used]).all():
                bad = next(i for i in used if not torch.isfinite(matrix[i]).all())
                raise EEVEError(
                    f"row {bad} of the base model's embeddings, of which new rows are made, is not finite; the base "
                    "model is broken: take another copy"
                )
            _set_rows(matrix, start, rows_of_new, base_vocab_size)
    return InitReport(
        start=start,
        stop=start + len(of_new),
        input="mean",
        output=output,
        distinct_output_rows=len({tuple(ids) for ids in sources[output] if ids is not None}),
        without_subwords=of_new.count([]),
        without_token=of_new.count(None),
    )


def _set_rows(
    weight: torch.Tensor, start: int, sources: list[list[int] | None], base_vocab_size: int
) -> None:
    """weight[start + n] = fp32 mean of weight[sources[n]]; the mean of all base rows where that is empty."""
    fallback = None
    for n, ids in enumerate(sources):
        if ids is None:
            continue
        if ids:
            row = weight[ids].float().mean(dim=0)
        else:
            if fallback is None:
                fallback = weight[:base_vocab_size].float().mean(dim=0)
            row = fallback
        weight[start + n] = row.to(weight.dtype)
