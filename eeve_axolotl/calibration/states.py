"""What a model makes of text: the head's inputs, and the tokens that follow them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from eeve_axolotl.calibration.regression import Logits
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.scoring import stream_texts, windows_of, with_bos

HELD_OUT = 5  # every so many documents of each text are for choosing, and are not learned from
RIDGE = 1e-3  # of the mean of the states' second moments
ROUNDING = 0.02  # of the largest logit: that of bf16, some times over


@dataclass
class States:
    """The head's inputs at some text, with their sums."""

    counts: torch.Tensor  # (ids,): how often each token came
    moments: torch.Tensor  # (width, width): sum of products
    sums: torch.Tensor  # (width,)
    number: int = 0
    hidden: list[torch.Tensor] = field(default_factory=list)  # (some, width) each
    targets: list[torch.Tensor] = field(default_factory=list)  # (some,) each: the tokens that follow

    @classmethod
    def none(cls, ids: int, width: int) -> States:
        """Before any text."""
        return cls(torch.zeros(ids), torch.zeros(width, width), torch.zeros(width))

    def add(self, hidden: torch.Tensor, targets: torch.Tensor) -> None:
        """Add the head's inputs (tokens, width) and the tokens (tokens,) that follow them."""
        self.counts += torch.bincount(targets, minlength=len(self.counts))
        wide = hidden.float()
        self.moments += wide.T @ wide
        self.sums += wide.sum(0)
        self.number += len(targets)
        self.hidden.append(hidden)
        self.targets.append(targets)

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All of the head's inputs, (tokens, width), and the tokens that follow, (tokens,)."""
        return torch.cat(self.hidden), torch.cat(self.targets)

    def second_moments(self) -> torch.Tensor:
        """(width, width): the mean of products, with a ridge that makes it safe to invert."""
        moments = self.moments / self.number
        return moments + RIDGE * moments.trace() / len(moments) * torch.eye(len(moments))

    def one(self) -> torch.Tensor:
        """(width,): its product with a state is near 1, by ridge regression."""
        return torch.linalg.solve(self.second_moments(), self.sums / self.number)

    def gate(self, new: torch.Tensor) -> torch.Tensor:
        """(width,): its product with a state is near 1 where one of the ids `new` follows, and near 0 elsewhere."""
        is_new = torch.zeros(len(self.counts), dtype=torch.bool)
        is_new[new] = True
        total = torch.zeros_like(self.sums)
        for hidden, targets in zip(self.hidden, self.targets, strict=True):
            total += hidden[is_new[targets]].float().sum(0)
        return torch.linalg.solve(self.second_moments(), total / self.number)


def documents(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """A document of each text at a time, empty ones left out, until the first text has no more."""
    return zip(*(filter(None, stream_texts(each)) for each in texts), strict=False)


@torch.no_grad()
def check_logits(model, logits: Logits) -> None:
    """Raise EEVEError if `logits` is not what the model makes of its head's products."""
    products: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *given: products.append(given[2]))
    try:
        made = model(input_ids=torch.arange(8, device=model.device)[None], use_cache=False).logits.float()
    finally:
        hook.remove()
    apart = torch.inf
    if products and products[0].shape == made.shape:
        apart = (logits.of(products[0].float()) - made).abs().max().item()
    if apart > ROUNDING * made.abs().max().item():  # not so where they are not finite
        raise EEVEError(
            f"{type(model).__name__} does something to its logits that is not known here, so output rows cannot be fitted "
            "to text; leave this step out: stage 1 starts rows of its own"
        )


@torch.no_grad()
def read(
    model, tokenizer, texts: Iterator[Sequence[str]], states: States, tokens: int, max_length: int
) -> list[str]:
    """Add the text's states to `states` until there are `tokens` of them; the documents that were held out."""
    held: list[str] = []
    for number, some in enumerate(texts):
        if number % HELD_OUT == HELD_OUT - 1:
            held.extend(text[:tokens] for text in some)
        else:
            for place, text in enumerate(some):  # a long document leaves the other texts their part
                room = (tokens - states.number) // (len(some) - place)
                read_document(model, with_bos(tokenizer, text)[: room + 1], states, max_length)
        if states.number >= tokens and held:
            break
    return held


@torch.no_grad()
def read_document(model, ids: list[int], states: States, max_length: int) -> None:
    """Add the states at a document's ids, in windows of `max_length`."""
    for window in windows_of(ids, max_length):
        if len(window) > 1:
            states.add(_inputs_of_head(model, window)[:-1], torch.tensor(window[1:]))


class _ReachedError(Exception):
    """The head was called: nothing behind it is of interest."""


def _inputs_of_head(model, window: list[int]) -> torch.Tensor:
    """What the head is given for each token, (tokens, width) on the CPU."""
    found: list[torch.Tensor] = []

    def take(_, given):
        found.append(given[0])
        raise _ReachedError

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        model(input_ids=torch.tensor([window], device=model.device), use_cache=False)
    except _ReachedError:
        pass
    finally:
        hook.remove()
    return found[0][0].cpu()
