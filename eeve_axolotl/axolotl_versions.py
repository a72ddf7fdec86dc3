"""Which Axolotl this package is for, and what one needs that another does not.

Nothing else asks for a version. A difference is a function here, with the version that it came with, and goes
when the older one is no longer supported. Imports nothing of Axolotl.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

TESTED = (
    "0.19.0",
    "0.21.0",
)  # the contract and what touches Axolotl: the tests that are marked both_versions

# Hooks that the plugin has and older versions do not call, with the version that first does.
HOOKS_SINCE = {"post_lora_merge": (0, 21)}  # on 0.19 only a chain records a merge


def installed() -> str:
    """The version of the Axolotl that is here; empty without one."""
    try:
        return version("axolotl")
    except PackageNotFoundError:
        return ""


def release() -> tuple[int, int]:
    """Its first two numbers."""
    major, minor = installed().split(".")[:2]
    return int(major), int(minor)


def in_words() -> str:
    """The Axolotl that a check speaks for, with a word of warning where it is not one of the tested."""
    here = installed()
    if not here:
        return "no Axolotl is installed here"
    return f"Axolotl {here}" if here in TESTED else f"Axolotl {here} (tested are {' and '.join(TESTED)})"


def is_failing() -> bool:
    """Whether the hook that asks was called because the run fails.

    0.21 calls `post_train_unload` in a `finally`: after a training that failed too. 0.19 leaves it out then.
    """
    return sys.exc_info()[0] is not None
