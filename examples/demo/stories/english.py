"""English words that format themselves, as Korean ones do: `f"{Word('apple'):a}"` is "an apple"."""

from __future__ import annotations


class Word(str):
    """A noun; the format spec is an article: a, the, or A and The at the head of a sentence."""

    def __format__(self, spec: str) -> str:
        if spec in ("a", "A"):
            article = "an" if self[0].lower() in "aeiou" else "a"
            return f"{article if spec == 'a' else article.capitalize()} {self}"
        if spec in ("the", "The"):
            return f"{spec} {self}"
        if spec == "cap":
            return self[0].upper() + self[1:]
        return str(self)


class Act:
    """A verb with its past and -ing forms; regular ones by rule."""

    def __init__(self, base: str, past: str | None = None, ing: str | None = None):
        self.base = base
        self.past = past or _regular_past(base)
        self.ing = ing or _regular_ing(base)

    def __format__(self, spec: str) -> str:
        return getattr(self, spec or "base")


def _regular_past(base: str) -> str:
    if base.endswith("e"):
        return base + "d"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ied"
    return base + "ed"


def _regular_ing(base: str) -> str:
    return (base[:-1] if base.endswith("e") and not base.endswith("ee") else base) + "ing"
