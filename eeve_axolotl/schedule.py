"""When a stage ends: its steps, its token budget, or its loss having converged. Pure arithmetic, no trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence


def converged(losses: Sequence[float], window: int, min_improvement: float, patience: int) -> bool:
    """Whether the loss has stopped falling.

    Losses are averaged over windows of `window` values. A window improves if its mean is below the best
    before it by more than `min_improvement` times that best. After `patience` windows in a row without
    improvement the loss has converged. (The paper trained each stage "until the loss converged", 3.2;
    how that was judged was not published.)

    Args:
        losses: one per step, from the stage's first.
    """
    means = [
        sum(losses[start : start + window]) / window for start in range(0, len(losses) - window + 1, window)
    ]
    best, without = math.inf, 0
    for mean in means:
        if mean < best - min_improvement * abs(best) or math.isinf(best):
            best, without = mean, 0
        else:
            without += 1
            if without == patience:
                return True
    return False
