"""What documents would add to a choice, from the sparse matrix of their new tokens.

offsets, ids, counts  int32: the new tokens of document n are ids[offsets[n]:offsets[n + 1]], and counts says how often it
                      has each
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def gains(offsets, ids, counts, missing, worth):
    """For each document the worth of the occurrences that are missing: float64. `missing`, `worth`: float64 per token."""
    found = np.empty(len(offsets) - 1, np.float64)
    for document in range(len(found)):
        gain = 0.0
        for n in range(offsets[document], offsets[document + 1]):
            gain += min(np.float64(counts[n]), missing[ids[n]]) * worth[ids[n]]
        found[document] = gain
    return found


@njit(nogil=True, cache=True)
def add_up(offsets, ids, counts, chosen, total):
    """Add to `total` (float64 per token) the occurrences in the documents for which `chosen` (bool) is true."""
    for document in range(len(chosen)):
        if chosen[document]:
            for n in range(offsets[document], offsets[document + 1]):
                total[ids[n]] += counts[n]
