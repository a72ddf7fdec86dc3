"""What a model makes of held-out text: bits per byte, comparable across tokenizers as loss per token is not;
and what it does with its new tokens."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import Source


@dataclass
class NewTokenScore:
    """What becomes of new tokens in a text, under the model's most likely next token."""

    targets: int = 0
    """Tokens of the text that are new."""
    correct: int = 0
    """Of these, how many the model predicts."""
    first_subword: int = 0
    """Of these, for how many it predicts the token's first subword in the base's vocabulary instead."""
    predicted: int = 0
    """New tokens among the model's predictions for all tokens of the text."""


@dataclass
class DocumentScores:
    """Figures of each document, in the text's order, with which another model's can be paired (see `comparison`)."""

    nats: list[float] = field(default_factory=list)
    """Negative log-likelihood of all of a document's tokens."""
    bytes: list[int] = field(default_factory=list)
    """A document's length in UTF-8."""
    sha256: str = ""
    """Of the documents' content, one after the other."""


@dataclass
class TextScore:
    """A model's figures on one text."""

    tokens: int = 0
    characters: int = 0
    new_tokens: NewTokenScore | None = None
    documents: DocumentScores = field(default_factory=DocumentScores)

    @property
    def nats(self) -> float:
        """Of all documents."""
        return sum(self.documents.nats)

    @property
    def bytes(self) -> int:
        """Of all documents."""
        return sum(self.documents.bytes)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of UTF-8."""
        return self.nats / math.log(2) / self.bytes

    @property
    def tokens_per_character(self) -> float:
        """Tokens for a character of the text: lower means more text in a context."""
        return self.tokens / self.characters

    def figures(self) -> dict[str, float]:
        """The rates alone, by name, for a tracker; what was not counted is left out."""
        found = self.as_dict()
        rates = {name: found[name] for name in ("bits_per_byte", "tokens_per_character")}
        new = found["new_tokens"] or {}
        of_new = {f"new_tokens/{name}": rate for name, rate in new.items() if name != "targets"}
        return {name: rate for name, rate in (rates | of_new).items() if rate is not None}

    def as_dict(self) -> dict:
        """The figures as numbers for JSON; shares are null where nothing was counted."""
        new = self.new_tokens
        return {
            "bits_per_byte": self.bits_per_byte,
            "tokens_per_character": self.tokens_per_character,
            "tokens": self.tokens,
            "characters": self.characters,
            "bytes": self.bytes,
            "new_tokens": new
            and {
                "targets": new.targets,
                "accuracy": new.correct / new.targets if new.targets else None,
                "first_subword_instead": new.first_subword / new.targets if new.targets else None,
                "share_of_predictions": new.predicted / self.tokens,
            },
            "documents": {
                "bits": [round(nats / math.log(2), 4) for nats in self.documents.nats],
                "bytes": self.documents.bytes,
                "sha256": self.documents.sha256,
            },
        }


def stream_texts(path: str | Path, limit: int | None = None) -> Iterator[str]:
    """The texts of a file or a directory of files, the first `limit` if given, one in memory at a time.

    Raises EEVEError if it is missing, of a kind that is not known, or has something without a `text`.
    """
    if not Path(path).exists():
        raise EEVEError(
            f"the text {path} does not exist; give the path of a file of text, or of a directory of them"
        )
    for document in itertools.islice(Source(path=str(path)).stream(), limit):
        yield document.text


def read_texts(path: str | Path, limit: int | None = None) -> list[str]:
    """All of them at once. Raises EEVEError for what `stream_texts` does, and if there is no text at all."""
    texts = list(stream_texts(path, limit))
    if not any(texts):
        raise EEVEError(f"the held-out text {path} is empty; give text to evaluate on")
    return texts


@torch.no_grad()
def score(
    model,
    tokenizer,
    texts: Iterable[str],
    *,
    max_length: int = 1024,
    batch_size: int = 8,
    first_subwords: dict[int, int] | None = None,
) -> TextScore:
    """Score `texts` under `model`: every token of every text is predicted once.

    A text begins with the tokenizer's bos token, which is context only. A text longer than
    `max_length` tokens is read in windows that share one token, so that none goes unpredicted.
    Texts are read as they come, some at a time, so they may be more than fit into memory.

    Args:
        max_length: tokens in one forward pass; at most the model's context.
        batch_size: windows in one forward pass; does not change the result beyond rounding.
        first_subwords: id of a new token -> id of its first subword; given, new tokens are counted too.
    """
    model.eval()
    result = TextScore(new_tokens=None if first_subwords is None else NewTokenScore())
    firsts = None
    if first_subwords is not None:
        firsts = torch.full((model.get_output_embeddings().weight.shape[0],), -1, device=model.device)
        firsts[list(first_subwords)] = torch.tensor(list(first_subwords.values()), device=model.device)
    waiting: list[_Window] = []
    content = hashlib.sha256()

    def use(least: int) -> None:
        waiting.sort(key=lambda each: len(each.ids))  # windows of one length together: little padding
        while len(waiting) > least:
            _add(result, model, [waiting.pop() for _ in range(min(batch_size, len(waiting)))], firsts)

    for number, text in enumerate(filter(None, texts)):
        ids, encoded = with_bos(tokenizer, text), text.encode()
        content.update(len(encoded).to_bytes(8, "big") + encoded)
        result.tokens += len(ids) - 1
        result.characters += len(text)
        result.documents.bytes.append(len(encoded))
        result.documents.nats.append(0.0)
        waiting.extend(_Window(number, window) for window in windows_of(ids, max_length))
        if len(waiting) > 100 * batch_size:
            use(least=50 * batch_size)
    use(least=0)
    result.documents.sha256 = content.hexdigest()
    if not result.tokens:
        raise EEVEError("there is no text to evaluate on; give a held-out file with text")
    return result


@dataclass(frozen=True)
class _Window:
    """Ids of one forward pass, and of which document of the text."""

    document: int
    ids: list[int]


def with_bos(tokenizer, text: str) -> list[int]:
    """The ids of `text` behind the token that a text begins with. Raises EEVEError for a tokenizer without one."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise EEVEError(
            "the tokenizer names neither a bos_token nor an eos_token, behind which a text's first token can be "
            "predicted; name one in its tokenizer_config.json"
        )
    return [first, *ids]


def windows_of(ids: list[int], length: int) -> Iterator[list[int]]:
    """Windows of at most `length` that share one token: the last of one is the first of the next."""
    for start in range(0, max(len(ids) - 1, 1), length - 1):
        yield ids[start : start + length]


def _add(result: TextScore, model, windows: list[_Window], firsts: torch.Tensor | None) -> None:
    """Add to `result` all but the first token of each window."""
    longest = max(len(each.ids) for each in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = torch.tensor(window.ids)
        mask[row, : len(window.ids)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    wanted, new = mask[:, 1:].bool(), result.new_tokens
    nats = []
    # A vocabulary is wide: some rows at a time stay in the cache, and bf16 logits are widened in passing.
    for rows, targets in zip(logits[wanted].split(64), ids[:, 1:][wanted].split(64), strict=True):
        losses = torch.nn.functional.cross_entropy(rows.float(), targets, reduction="none")
        nats.append(losses.double())
        if firsts is not None and new is not None:
            _count_new(new, rows.argmax(-1), targets, firsts)
    of_windows = torch.cat(nats).split([len(each.ids) - 1 for each in windows])
    for window, of_window in zip(windows, of_windows, strict=True):
        result.documents.nats[window.document] += float(of_window.sum())


def _count_new(
    counts: NewTokenScore, predicted: torch.Tensor, targets: torch.Tensor, firsts: torch.Tensor
) -> None:
    is_new = firsts[targets] >= 0
    counts.targets += int(is_new.sum())
    counts.correct += int((predicted == targets)[is_new].sum())
    counts.first_subword += int((predicted == firsts[targets])[is_new].sum())
    counts.predicted += int((firsts[predicted] >= 0).sum())
