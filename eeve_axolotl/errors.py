"""The exceptions for what a user can put right, and for what cannot be known here."""

import os


class EEVEError(Exception):
    """A user's mistake, told in one sentence: what is wrong, where, and what to change.

    The commands and the plugin print its message without a traceback and exit with status 1.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """


class UnknownError(EEVEError):
    """What cannot be looked at here: a model on a hub that is out of reach. Nothing need be wrong with it."""


def if_offline() -> str:
    """For a sentence on something that the hub may have: that it is not asked, where it is not."""
    set_to = os.environ.get("HF_HUB_OFFLINE", "").upper()
    return (
        "; HF_HUB_OFFLINE is set: unset it to have the hub asked"
        if set_to in ("1", "ON", "YES", "TRUE")
        else ""
    )
