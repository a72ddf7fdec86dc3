"""How well a model predicts a text, in bits per byte: comparable across tokenizers, as loss per token is not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from eeve_axolotl.errors import EEVEError


@dataclass(frozen=True)
class TextScore:
    """A model's figures on one text; `nats` is the summed negative log-likelihood of all its tokens."""

    nats: float
    tokens: int
    characters: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of UTF-8."""
        return self.nats / math.log(2) / self.bytes

    @property
    def tokens_per_character(self) -> float:
        """Tokens for a character of the text: lower means more text in a context."""
        return self.tokens / self.characters


def read_texts(path: str | Path, limit: int | None = None) -> list[str]:
    """The `text` fields of a JSON-lines file, the first `limit` if given.

    Raises EEVEError if the file is missing, a line is not JSON with a `text`, or nothing is in it.
    """
    path = Path(path)
    if not path.is_file():
        raise EEVEError(f"the held-out text {path} does not exist; give the path of a JSON-lines file")
    texts = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if limit is not None and len(texts) == limit:
                break
            try:
                texts.append(json.loads(line)["text"])
            except (ValueError, KeyError, TypeError):
                raise EEVEError(f"{path}, line {number}: not a JSON object with a `text` key") from None
    if not any(texts):
        raise EEVEError(f"the held-out text {path} is empty; give text to evaluate on")
    return texts


@torch.no_grad()
def score(
    model, tokenizer, texts: Iterable[str], *, max_length: int = 1024, batch_size: int = 8
) -> TextScore:
    """Score `texts` under `model`: every token of every text is predicted once.

    A text begins with the tokenizer's bos token, which is context only. A text longer than
    `max_length` tokens is read in windows that share one token, so that none goes unpredicted.

    Args:
        max_length: tokens in one forward pass; at most the model's context.
        batch_size: windows in one forward pass; does not change the result beyond rounding.
    """
    model.eval()
    texts = [text for text in texts if text]
    windows, tokens = [], 0
    for text in texts:
        ids = _with_bos(tokenizer, text)
        tokens += len(ids) - 1
        windows.extend(_windows(ids, max_length))
    windows.sort(key=len)  # windows of one length together: little padding
    nats = sum(_nats(model, windows[i : i + batch_size]) for i in range(0, len(windows), batch_size))
    return TextScore(nats, tokens, sum(map(len, texts)), sum(len(text.encode()) for text in texts))


def _with_bos(tokenizer, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [first, *ids]


def _windows(ids: list[int], length: int) -> Iterator[list[int]]:
    """Windows of at most `length` that share one token: the last of one is the first of the next."""
    for start in range(0, max(len(ids) - 1, 1), length - 1):
        yield ids[start : start + length]


def _nats(model, windows: list[list[int]]) -> float:
    """Summed negative log-likelihood of all but the first token of each window, in nats."""
    longest = max(map(len, windows))
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = torch.tensor(window)
        mask[row, : len(window)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    wanted = mask[:, 1:].bool()
    total = 0.0
    # A vocabulary is wide: some rows at a time stay in the cache, and bf16 logits are widened in passing.
    for rows, targets in zip(logits[wanted].split(64), ids[:, 1:][wanted].split(64), strict=True):
        losses = torch.nn.functional.cross_entropy(rows.float(), targets, reduction="none")
        total += float(losses.double().sum())
    return total
