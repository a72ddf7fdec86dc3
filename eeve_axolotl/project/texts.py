"""A look into the text that a project starts from: whether it can be read, is in the script, and how much there is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from eeve_axolotl.corpus.languages import LANGUAGES
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.languages import Language, find
from eeve_axolotl.project.base import named_in
from eeve_axolotl.sources import Source

LOOKED_AT = 200  # documents of a text
HELD_OUT = 100_000  # bytes of a small text that should be held out


@dataclass(frozen=True)
class Text:
    """The text of one language."""

    language: Language
    sources: list[Source]
    new: bool
    """Whether the base is to learn it, or knows it."""

    @property
    def group(self) -> str:
        """Its name in the corpus's mix."""
        return self.language.name.lower().replace(" ", "_")

    @property
    def prompt(self) -> str:
        """How a document of it begins: three words, or where words are not set apart, some letters."""
        first = next((each for each in _first(self.sources) if each.strip()), "")
        return " ".join(first.split()[:3])[:24].rstrip()

    @property
    def bytes(self) -> int:
        """Of its files, as they are on disk."""
        return sum(file.stat().st_size for source in self.sources for file in source.files())

    @property
    def has_stopwords(self) -> bool:
        """Whether the corpus's filters know the language."""
        return self.language.code in LANGUAGES


def new_text(paths: Iterable[str], language: Language, columns: tuple[str, ...]) -> Text:
    """The text of the language to be learned. Raises EEVEError if it cannot be read, or is in another script."""
    text = Text(language, [_source(path, columns) for path in paths], new=True)
    first = "".join(_first(text.sources))
    letters = len(regex.findall(r"\p{L}", first))
    of_script = len(regex.findall("|".join(rf"\p{{Script={each}}}" for each in language.scripts), first))
    if not of_script:
        raise EEVEError(
            f"--corpus: the first {LOOKED_AT} documents have {letters:,} letters, none of them in the script "
            f"{', '.join(language.scripts)}; give text in {language.name}, or another --script"
        )
    return text


def kept_text(given: str, columns: tuple[str, ...]) -> Text:
    """Text of a language that the base knows, given as NAME=PATH. Raises EEVEError if it is not, or cannot be read."""
    name, equals, path = given.partition("=")
    if not (name and equals and path):
        raise EEVEError(f"--keep {given}: give the language and its text, like --keep English=./english")
    try:
        language = find(name, ())
    except EEVEError:
        language = Language(name, ())
    text = Text(language, [_source(path, columns)], new=False)
    next(_first(text.sources), None)
    return text


def held_out_share(texts: list[Text]) -> float:
    """Of each text's documents: half a percent, and more of a small text, at most a tenth."""
    smallest = min(max(1, text.bytes) for text in texts)
    return round(min(0.1, max(0.005, HELD_OUT / smallest)), 3)


def shards(texts: list[Text]) -> int:
    """Training files: one for each 200 MB."""
    return max(1, min(64, sum(text.bytes for text in texts) // 200_000_000))


def as_yaml(text: Text, project: Path) -> list[dict[str, Any]]:
    """The sources as the project's YAMLs name them."""
    found = []
    for source in text.sources:
        entry: dict[str, Any] = {"path": named_in(Path(source.path), project)}
        found.append(entry if source.columns == ["text"] else {**entry, "columns": source.columns})
    return found


def _source(path: str, columns: tuple[str, ...]) -> Source:
    return Source(path=str(Path(path).expanduser()), columns=list(columns) or ["text"])


def _first(sources: list[Source]) -> Iterator[str]:
    return itertools.islice((each.text for source in sources for each in source.stream()), LOOKED_AT)
