"""A process's own peak memory, for benchmarks that start one to measure it."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_rss_mb() -> float:
    """The most memory that this process has had. `ru_maxrss` is also that of the process which started it."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
