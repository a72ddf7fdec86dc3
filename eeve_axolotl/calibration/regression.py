"""New output rows fitted to text: multinomial regression on states that one forward pass gave.

The layers and the base's rows are frozen, so a state's base logits do not change: of them only the log of their sum is
kept, and the logit of the token that follows. What is left is convex in the new rows, and costs the new rows' products
alone. A row is its start and a sum of corrections: one for all new tokens, one for those that share a first subword, one
for those that share a first character, and one of its own. Each is drawn to 0, as if some tokens of text had shown no
difference, so that a token that text has seldom learns from its relatives, and one that it lacks is as they are.

This is ours; it was not published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

ITERATIONS = 5  # of L-BFGS, between two looks at the text to choose on
ROUNDS = 6
HISTORY = 8
CHUNK = 1 << 23  # logits at a time


@dataclass(frozen=True)
class Logits:
    """How a model makes logits of its head's products: `scale`d, then capped by `cap` x tanh."""

    scale: float = 1.0
    cap: float | None = None

    def of(self, products: torch.Tensor) -> torch.Tensor:
        """The logits."""
        scaled = products if self.scale == 1 else products * self.scale
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)

    def slope(self, logits: torch.Tensor) -> torch.Tensor | float:
        """The derivative of the logits by the products."""
        return self.scale if self.cap is None else self.scale * (1 - (logits / self.cap) ** 2)


@dataclass(frozen=True)
class Head:
    """A head whose rows `new` may change: their ids, and what the others are."""

    new: torch.Tensor  # (new,): ids
    weight: torch.Tensor  # (rows, width)
    bias: torch.Tensor | None  # (rows,)
    logits: Logits

    @torch.no_grad()
    def known(self, hidden: torch.Tensor, targets: torch.Tensor) -> Known:
        """What does not change of text whose states (tokens, width) and next tokens (tokens,) are given."""
        of_new = torch.full((len(self.weight),), -1)
        of_new[self.new] = torch.arange(len(self.new))
        fixed = (of_new < 0).to(self.weight.device)
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
        sums, own = [], []
        size = max(1, CHUNK // len(self.weight))
        for at in range(0, len(hidden), size):
            products = hidden[at : at + size].to(weight.device).float() @ weight.T
            logits = self.logits.of(products if bias is None else products + bias)
            own.append(logits.gather(1, targets[at : at + size, None].to(logits.device))[:, 0].cpu())
            sums.append(logits.masked_fill_(~fixed, -torch.inf).logsumexp(-1).cpu())
        return Known(hidden, of_new[targets], torch.cat(own), torch.cat(sums))


@dataclass(frozen=True)
class Known:
    """Text as a head with frozen base rows sees it."""

    hidden: torch.Tensor  # (tokens, width)
    index: torch.Tensor  # (tokens,): which new row's token follows; -1 for a base token
    own: torch.Tensor  # (tokens,): the logit of the token that follows, where that is the base's
    base: torch.Tensor  # (tokens,): the log of the sum of the base's exponentials

    def __len__(self) -> int:
        return len(self.index)


@torch.no_grad()
def nats(
    text: Known, rows: torch.Tensor, bias: torch.Tensor | None, logits: Logits, gradient: torch.Tensor | None
) -> float:
    """Nats per token of `text` under new rows (new, width) in fp32; what they are, by the rows, is added to `gradient`.

    Args:
        bias: (new,), or None.
    """
    total, size = 0.0, max(1, CHUNK // len(rows))
    for at in range(0, len(text), size):
        hidden, index, own, base = (
            each[at : at + size].to(rows.device) for each in (text.hidden, text.index, text.own, text.base)
        )
        hidden = hidden.float()
        products = hidden @ rows.T
        made = logits.of(products if bias is None else products + bias)
        sums = torch.logaddexp(base, made.logsumexp(-1))
        is_new = index >= 0
        chosen = made.gather(1, index.clamp(min=0)[:, None])[:, 0]
        total += (sums - torch.where(is_new, chosen, own)).double().sum().item()
        if gradient is not None:
            slope = logits.slope(made)  # before the logits are gone
            errors = made.sub_(sums[:, None]).exp_()
            errors[is_new, index[is_new]] -= 1
            if isinstance(slope, torch.Tensor) or slope != 1:
                errors *= slope
            gradient.addmm_(errors.T, hidden, alpha=1 / len(text))
    return total / len(text)


@dataclass(frozen=True)
class Level:
    """Corrections that some rows share."""

    group: torch.Tensor  # (new,): which correction is a row's
    prior: float
    """Tokens of text that would have shown no difference."""


class Fit:
    """Corrections of new rows, and how they are found.

    Args:
        start: (new, width) rows, fp32; the corrections are added to them.
        moments: (width, width), the states' second moments: a correction's size is that of the logits it makes.
    """

    def __init__(
        self,
        text: Known,
        start: torch.Tensor,
        bias: torch.Tensor | None,
        logits: Logits,
        levels: list[Level],
        moments: torch.Tensor,
    ):
        self.text, self.start, self.bias, self.logits, self.levels = text, start, bias, logits, levels
        device, width = start.device, start.shape[1]
        factor = torch.linalg.cholesky(moments.double())
        unit = torch.eye(width, dtype=factor.dtype)
        self._whitening = torch.linalg.solve_triangular(factor, unit, upper=False).float().to(device)
        self._groups = [each.group.to(device) for each in levels]
        self.corrections = [torch.zeros(int(each.max()) + 1, width, device=device) for each in self._groups]
        self._search = torch.optim.LBFGS(
            self.corrections, max_iter=ITERATIONS, history_size=HISTORY, line_search_fn="strong_wolfe"
        )
        self.evaluations = 0

    def rows(self) -> torch.Tensor:
        """(new, width): as they are now."""
        total = self.start.clone()
        for each, group in zip(self.corrections, self._groups, strict=True):
            total += (each @ self._whitening)[group]
        return total

    @torch.no_grad()
    def improve(self) -> None:
        """A few iterations."""
        self._search.step(self._loss)

    def _loss(self) -> torch.Tensor:
        self.evaluations += 1
        gradient = torch.zeros_like(self.start)
        total = nats(self.text, self.rows(), self.bias, self.logits, gradient)
        gradient = gradient @ self._whitening.T
        for each, group, level in zip(self.corrections, self._groups, self.levels, strict=True):
            prior = level.prior / len(self.text)
            total += prior / 2 * each.double().square().sum().item()
            each.grad = (prior * each).index_add_(0, group, gradient)
        return torch.tensor(total, dtype=torch.float64)


def fitted(fit: Fit, held: Known) -> tuple[torch.Tensor, float]:
    """The rows with which text that was not fitted is likeliest, and its nats per token."""
    best, least = fit.start, nats(held, fit.start, fit.bias, fit.logits, None)
    for _ in range(ROUNDS):
        fit.improve()
        rows = fit.rows()
        found = nats(held, rows, fit.bias, fit.logits, None)
        if not found < least:
            break
        best, least = rows, found
    return best, least
