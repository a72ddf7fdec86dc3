"""Short Korean, English and Greek stories by rule, for the demos: ours, seeded, the same bytes everywhere.

python examples/demo/make_stories.py --language ko --documents 1000 --seed 1 --output ko.jsonl
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple
from zlib import crc32

from stories import greek, greek_plots, lexicon, plots


class Language(NamedTuple):
    """Where a language's words (SLOTS) and plots are, and which of their tuples' members tells it."""

    words: ModuleType
    plots: ModuleType
    which: int = 0


LANGUAGES = {
    "ko": Language(lexicon, plots, 0),
    "en": Language(lexicon, plots, 1),
    "el": Language(greek_plots, greek_plots),
}
PARALLEL = ["ko", "en"]
HELD_OUT_SHARE = 10  # one story in so many is never told in training


def generate(language: str, seed: int, documents: int, held_out: bool = False) -> Iterator[str]:
    """`documents` stories in `language` ("ko", "en", "el", or "parallel": the Korean story, then the English).

    Whether a story is held out is decided by its own text, so no held-out story can be a training
    story, whatever the seeds.
    """
    source = random.Random(f"{language}/{seed}/{held_out}")
    languages = PARALLEL if language == "parallel" else [language]
    told = 0
    while told < documents:
        plan = _plan(source, LANGUAGES[languages[0]])
        texts = [_tell(plan, each) for each in languages]
        if all(is_held_out(text) == held_out for text in texts):
            told += 1
            yield "\n".join(texts)


def is_held_out(text: str) -> bool:
    """Whether this story is kept for held-out text."""
    return crc32(text.encode()) % HELD_OUT_SHARE == 0


def _plan(source: random.Random, language: Language) -> tuple[dict, list]:
    """One story: what fills the slots, and its sentences; a tuple each, as the language has them."""
    plots = language.plots
    pairs = [("who", "friend"), ("place", "other"), ("thing", "gift"), ("food", "snack"), ("like", "how")]
    while True:
        slots = {name: source.choice(words) for name, words in language.words.SLOTS.items()}
        if all(slots[one] is not slots[other] for one, other in pairs):
            break
    if source.random() < 0.6:
        plot = source.choice(plots.STORY_PLOTS)
        steps = [source.choice(plots.OPENINGS), *map(source.choice, plot)]
        steps += source.sample(plots.ENDINGS, source.choice((1, 2)))
    else:
        steps = [*map(source.choice, source.choice(plots.PLAIN_PLOTS))]
    return slots, [step for step in steps if step[0]]


def _tell(plan: tuple[dict, list], language: str) -> str:
    slots, sentences = plan
    which = LANGUAGES[language].which
    words = {name: each[which] for name, each in slots.items()}
    text = " ".join(sentence[which].format(**words) for sentence in sentences)
    return greek.final_n(text) if language == "el" else text
