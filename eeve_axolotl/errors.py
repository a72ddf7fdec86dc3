"""The one exception for what a user can put right."""


class EEVEError(Exception):
    """A user's mistake, told in one sentence: what is wrong, where, and what to change.

    The commands and the plugin print its message without a traceback and exit with status 1.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """
