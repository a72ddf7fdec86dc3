"""The threshold on counts: when it is off, and which new tokens are below it nevertheless.

A letter comes in for how often the text has it (card, step 6). Once longer tokens are made of it, it may be produced less
often than the threshold, or never alone; its rows then train little, or not at all. It is needed all the same: to reach
the longer tokens, and for words that the corpus lacks.
"""

from __future__ import annotations

from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer.curation import Curation
from eeve_axolotl.tokenizer.rules import Selection
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.spelling import BOUNDARY, Spelling

LOG = logger("tokenizer")


def warn_if_off(settings: TokenizerSettings, corpus_bytes: int) -> None:
    """Say so if the threshold drops nothing because the corpus is small."""
    rate = settings.rate()
    if rate and settings.threshold(corpus_bytes) <= 1:
        LOG.warning(
            "%g times for each GB is %.2g times in a corpus of %.1f MB: the threshold is off, and a token that is seen once "
            "is frequent enough; set min_count, or a larger min_count_per_gb, to drop what is rare",
            rate, rate * corpus_bytes / 1e9, corpus_bytes / 1e6,
        )  # fmt: skip


def rare(selection: Selection, min_count: int, spelling: Spelling, curation: Curation) -> dict[str, int]:
    """How many new tokens occur less often than the threshold, by why they are in; and how many never."""
    found = dict.fromkeys(("letters", "letters_never_alone", "beginnings_of_letters", "allowed", "others"), 0)
    fragments, allowed = set(selection.fragments), set(map(spelling.spell, curation.allow))
    for token, count in selection.counts.items():
        if count >= min_count:
            continue
        if token in fragments:
            found["beginnings_of_letters"] += 1
        elif len(spelling.read(token).lstrip(BOUNDARY)) == 1:
            found["letters"] += 1
            found["letters_never_alone"] += not count
        else:
            found["allowed" if token in allowed else "others"] += 1
    return found


def sentence(found: dict[str, int], min_count: int) -> str:
    """The same in words."""
    parts = []
    if found["letters"]:
        parts.append(
            f"{found['letters']:,} letters, frequent in the text but mostly inside longer tokens "
            f"({found['letters_never_alone']:,} are never produced alone)"
        )
    if found["beginnings_of_letters"]:
        parts.append(f"{found['beginnings_of_letters']:,} beginnings of letters, which lead to these")
    if found["allowed"] or found["others"]:
        parts.append(f"{found['allowed'] + found['others']:,} that lists allow, or that lead to one of these")
    return f"New tokens produced less than {min_count:,} times: {'; '.join(parts) or 'none'}."
