"""One sentence as the base's tokenizer cuts it and as the extended one does, from files that are at hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.report.collect import PipelineData
from eeve_axolotl.sources import Source

FILE = "tokenizer.json"
LONGEST = 60  # characters of a sentence that a screen shows well
AGAIN = "·"  # another token of the character before it: a byte of it


@dataclass(frozen=True)
class Sentence:
    """A text, and its pieces before and after: one for each token."""

    text: str
    before: list[str]
    after: list[str]


def sentence(pipeline: PipelineData) -> Sentence | None:
    """Of the first sentence of each held-out text, and the prompts, what the extension shortens most.

    None where a tokenizer is not here, or there is no text that it shortens.
    """
    files = Path(pipeline.base_model).expanduser() / FILE, pipeline.tokenizer / FILE
    if not all(file.is_file() for file in files):
        return None
    prompts = [sample["prompt"] for each in pipeline.evaluated for sample in each.samples]
    texts = dict.fromkeys([*_first_sentences(pipeline.texts.values()), *prompts])
    from tokenizers import Tokenizer

    try:
        base, extended = (Tokenizer.from_file(str(file)) for file in files)
    except Exception:  # what tokenizers raises at a file that is not whole: the report is of more than this
        return None
    found = [Sentence(text, _pieces(base, text), _pieces(extended, text)) for text in texts]
    best = max(found, key=lambda each: len(each.before) - len(each.after), default=None)
    return best if best and len(best.before) > len(best.after) else None


def _first_sentences(places: Iterable[str]) -> list[str]:
    """The first sentence of each text, or its first words; nothing of a text that is not here any more."""
    found = []
    for place in places:
        try:
            text = next((each.text for each in Source(path=place).stream() if each.text.strip()), "")
        except (EEVEError, OSError):
            continue
        line = text.strip().splitlines()[0] if text.strip() else ""
        sentence = re.split(r"(?<=[.!?。！？।])\s*", line)[0]
        if len(sentence) > LONGEST:
            sentence = sentence[:LONGEST].rsplit(" ", 1)[0] + " …"
        found.append(sentence)
    return [each for each in found if each]


def _pieces(tokenizer, text: str) -> list[str]:
    """What of `text` each token stands for; a token that is a further byte of a character is `AGAIN`."""
    pieces, end = [], 0
    for start, stop in tokenizer.encode(text, add_special_tokens=False).offsets:
        pieces.append(text[max(start, end) : stop].strip() or AGAIN)
        end = max(end, stop)
    return pieces
