"""One sentence as the base's tokenizer cuts it and as the extended one does, from files that are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eeve_axolotl.report.collect import PipelineData

FILE = "tokenizer.json"
AGAIN = "·"  # another token of the character before it: a byte of it


@dataclass(frozen=True)
class Sentence:
    """A text, and its pieces before and after: one for each token."""

    text: str
    before: list[str]
    after: list[str]


def sentence(pipeline: PipelineData) -> Sentence | None:
    """The prompt that the extension shortens most; None where a tokenizer is not here or there is no prompt."""
    files = Path(pipeline.base_model).expanduser() / FILE, pipeline.tokenizer / FILE
    prompts = dict.fromkeys(sample["prompt"] for each in pipeline.evaluated for sample in each.samples)
    if not prompts or not all(file.is_file() for file in files):
        return None
    from tokenizers import Tokenizer

    try:
        base, extended = (Tokenizer.from_file(str(file)) for file in files)
    except Exception:  # what tokenizers raises at a file that is not whole: the report is of more than this
        return None
    found = [Sentence(text, _pieces(base, text), _pieces(extended, text)) for text in prompts]
    best = max(found, key=lambda each: len(each.before) - len(each.after))
    return best if len(best.before) > len(best.after) else None


def _pieces(tokenizer, text: str) -> list[str]:
    """What of `text` each token stands for; a token that is a further byte of a character is `AGAIN`."""
    pieces, end = [], 0
    for start, stop in tokenizer.encode(text, add_special_tokens=False).offsets:
        pieces.append(text[max(start, end) : stop].strip() or AGAIN)
        end = max(end, stop)
    return pieces
