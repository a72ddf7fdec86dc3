"""Memory that is free goes back to the system: what one step has freed would else stay beside what the next one takes.

Arrow allocates by the C library too, as this package's `__init__` asks; where it was imported before, it does from here on.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import pyarrow as pa

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # glibc's numbers for `mallopt`
# Bytes: what is larger goes back as soon as it is free. With glibc's own 128 kB, the same memory went back and forth.
_LARGE = 1 << 22
_ARROWS_OWN = pa.default_memory_pool()


def give_back() -> None:
    """Give back what is free now, and from now on large pieces as soon as they are free. Each step begins with it."""
    c = _library()
    _ARROWS_OWN.release_unused()
    if c is not None:
        c.malloc_trim(0)


@cache
def _library() -> ctypes.CDLL | None:
    """glibc, told to keep little; None where the C library is another one."""
    pa.set_memory_pool(pa.system_memory_pool())
    c = ctypes.CDLL(None) if sys.platform == "linux" else None
    if c is None or not (hasattr(c, "mallopt") and hasattr(c, "malloc_trim")):
        return None
    for what, value in ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _LARGE), (_MMAP_THRESHOLD, _LARGE)):
        c.mallopt(what, value)
    return c
