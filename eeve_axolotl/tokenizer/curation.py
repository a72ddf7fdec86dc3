"""What a person wants of the new tokens: lists and patterns, applied to the candidates before they are counted.

A token that is refused is no candidate, so the selection finds the next best way to make what it was part
of, or drops that too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import regex

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.spelling import BOUNDARY
from eeve_axolotl.tokenizer.words.base import WordSplitter


@dataclass(frozen=True)
class Curation:
    """Tokens are spelled as in the manifest: ▁ for the space before a word.

    allow: added however rare, with the beginnings that their merges need.
    deny: never added.
    reject: patterns; a token that one matches anywhere is not added.
    max_length: longer tokens are not added, in characters, ▁ not counted.

    `allow` goes before `reject` and `max_length`. These two leave single letters alone: only `deny` refuses one.
    """

    allow: tuple[str, ...] = ()
    deny: frozenset[str] = frozenset()
    reject: tuple[regex.Pattern, ...] = ()
    max_length: int | None = None
    _kept: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept", frozenset(self.needed()))
        both = self.deny & self._kept
        if both:
            raise EEVEError(
                f"deny has {min(both)}, which is in `allow` or begins a token there; remove it from one of them"
            )

    @classmethod
    def read(
        cls,
        splitter: WordSplitter,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        reject: Iterable[str] = (),
        max_length: int | None = None,
    ) -> Curation:
        """From files (`allow`, `deny`: a token on a line, `#` before a comment) and patterns.

        Raises EEVEError for a file that is not there, a pattern that is no regular expression, or an allowed token that is
        not a run of the scripts' letters: only such tokens leave all other text as it was.
        """
        patterns = []
        for pattern in reject:
            try:
                patterns.append(regex.compile(pattern))
            except regex.error as error:
                raise EEVEError(f"reject: {pattern!r} is not a regular expression ({error})") from None
        allowed = tuple(dict.fromkeys(token for file in allow for token in read_list(file)))
        for token in allowed:
            spelled = splitter.spelling.spell(token)
            if splitter.spans(spelled) != [token] or not splitter.has_letter(spelled):
                raise EEVEError(
                    f"allow: {token!r} is not letters of {' or '.join(splitter.scripts)} with at most one "
                    f"{BOUNDARY} before them; remove it, or add its script"
                )
        return cls(
            allowed,
            frozenset(token for file in deny for token in read_list(file)),
            tuple(patterns),
            max_length,
        )

    def needed(self) -> list[str]:
        """The allowed tokens and what makes sure of them: their letters and all their beginnings, shortest first.

        With every beginning in the vocabulary, the first two tokens of what stands for an allowed token
        always have a merge.
        """
        parts = {
            part
            for token in self.allow
            for part in (*token.lstrip(BOUNDARY), *(token[:n] for n in range(1, len(token) + 1)))
        }
        return sorted(parts - {BOUNDARY}, key=lambda part: (len(part), part))

    def refusal(self, token: str) -> str | None:
        """Why `token` must not be added, None if it may be."""
        if token in self.deny:
            return "deny"
        if token in self._kept or len(token) == 1:
            return None
        if self.max_length is not None and len(token.lstrip(BOUNDARY)) > self.max_length:
            return f"longer than {self.max_length}"
        for pattern in self.reject:
            if pattern.search(token):
                return f"reject: {pattern.pattern}"
        return None


def read_list(file: str | Path) -> list[str]:
    """The tokens that a file names: one on a line, without the space around it; `#` begins a comment.

    Raises EEVEError if the file cannot be read.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EEVEError(f"{file}: no list of tokens ({error}); give a UTF-8 text file") from None
    tokens = (line.partition("#")[0].strip() for line in lines)
    return [token for token in tokens if token]
