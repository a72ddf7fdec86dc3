"""Short Korean and English stories by rule, for the demo: ours, seeded, the same bytes everywhere.

python examples/demo/make_stories.py --language ko --documents 1000 --seed 1 --output ko.jsonl
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from zlib import crc32

from stories import lexicon, plots

LANGUAGES = {"ko": 0, "en": 1}  # which of a pair is told
HELD_OUT_SHARE = 10  # one story in so many is never told in training


def generate(language: str, seed: int, documents: int, held_out: bool = False) -> Iterator[str]:
    """`documents` stories in `language` ("ko", "en", or "parallel": the Korean story, then the English).

    Whether a story is held out is decided by its own text, so no held-out story can be a training
    story, whatever the seeds.
    """
    source = random.Random(f"{language}/{seed}/{held_out}")
    languages = list(LANGUAGES) if language == "parallel" else [language]
    told = 0
    while told < documents:
        plan = _plan(source)
        texts = [_tell(plan, each) for each in languages]
        if all(is_held_out(text) == held_out for text in texts):
            told += 1
            yield "\n".join(texts)


def is_held_out(text: str) -> bool:
    """Whether this story is kept for held-out text."""
    return crc32(text.encode()) % HELD_OUT_SHARE == 0


def _plan(source: random.Random) -> tuple[dict, list]:
    """One story: what fills the slots, and its sentences as pairs."""
    pairs = [("who", "friend"), ("place", "other"), ("thing", "gift"), ("food", "snack"), ("like", "how")]
    while True:
        slots = {name: source.choice(words) for name, words in lexicon.SLOTS.items()}
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
    which = LANGUAGES[language]
    words = {name: pair[which] for name, pair in slots.items()}
    return " ".join(sentence[which].format(**words) for sentence in sentences)
