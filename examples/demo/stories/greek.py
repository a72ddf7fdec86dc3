"""Greek words that agree: articles and cases by gender, adjectives by the noun they stand beside.

The spec of a noun is the article as it is for a masculine one: `f"{Noun('η γάτα'):τον}"` is "την γάτα", which
`final_n` then spells "τη γάτα". A capital begins a sentence; a hyphen gives the article alone, for an
adjective to follow: `"{thing:έναν-} {like:acc {thing.gender}} {thing:acc}"`.
"""

from __future__ import annotations

import re

GENDERS = {"ο": "m", "η": "f", "το": "n"}

ARTICLES = {
    "ο": {"m": "ο", "f": "η", "n": "το"},
    "τον": {"m": "τον", "f": "την", "n": "το"},
    "στον": {"m": "στον", "f": "στην", "n": "στο"},
    "ένας": {"m": "ένας", "f": "μια", "n": "ένα"},
    "έναν": {"m": "έναν", "f": "μια", "n": "ένα"},
}
NOMINATIVE = ("ο", "ένας")  # the other articles stand before an accusative


def capital(text: str) -> str:
    """The text with its first letter a capital."""
    return text[:1].upper() + text[1:]


class Noun:
    """A noun by its nominative with the article, which tells its gender; `plural` where the stories count it."""

    def __init__(self, with_article: str, plural: str = ""):
        article, self.nominative = with_article.split(" ", 1)
        self.gender = GENDERS[article]
        self.plural = plural

    @property
    def accusative(self) -> str:
        """Masculine nouns lose their ς: ο σκύλος, τον σκύλο."""
        return self.nominative.removesuffix("ς") if self.gender == "m" else self.nominative

    def __format__(self, spec: str) -> str:
        forms = {"": self.nominative, "acc": self.accusative, "plural": self.plural}
        # Names in -ος of two syllables, the only ones here, are called as in the accusative: Νίκο!
        forms["voc"] = self.accusative
        if spec in forms:
            return forms[spec]
        kind = spec.lower().removesuffix("-")
        text = ARTICLES[kind][self.gender]
        if not spec.endswith("-"):
            text += " " + (self.nominative if kind in NOMINATIVE else self.accusative)
        return capital(text) if spec[0].isupper() else text


class Adjective:
    """An adjective by its masculine nominative; the spec is its case and gender: `nom f`, `acc m`."""

    def __init__(self, masculine: str):
        self.stem, self.accent = masculine[:-2], masculine[-2] == "ό"

    def __format__(self, spec: str) -> str:
        case, gender = spec.split()
        if gender == "f":  # -α after a vowel, else -η: παλιά, μικρή
            ending = "α" if self.stem[-1] in "αειουίύ" else "η"
        else:
            ending = "ο"
        if self.accent:
            ending = {"α": "ά", "η": "ή", "ο": "ό"}[ending]
        return self.stem + ending + ("ς" if gender == "m" and case == "nom" else "")


class Verb(str):
    """A verb's past, as "he did, they did"; the spec is `past` or `pasts`."""

    def __format__(self, spec: str) -> str:
        one, many = self.split(", ")
        return {"past": one, "pasts": many}[spec]


class Phrase(str):
    """Words that do not change; `cap` begins a sentence with them."""

    def __format__(self, spec: str) -> str:
        return capital(self) if spec == "cap" else str(self)


_BEFORE = re.compile(r"\b([Σσ]?[Ττ]η)ν (?=[βδζθλρσφχ]|γ(?!κ)|μ(?!π)|ν(?!τ))", re.IGNORECASE)


def final_n(text: str) -> str:
    """The text with the ν of την and στην left out where the next word's first sound does not keep it."""
    return _BEFORE.sub(r"\1 ", text)
