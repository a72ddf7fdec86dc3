"""Korean word forms by rule: particles by the last sound, verbs by jamo arithmetic.

A Hangul syllable is 0xAC00 + (lead * 21 + vowel) * 28 + tail. Both classes format themselves:
`f"{Noun('학교'):으로/로}"` is 학교로, `f"{Verb('걷', 'ㄷ'):past}"` is 걸었다.
"""

from __future__ import annotations

FIRST = 0xAC00
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
TAILS = ["", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"]


def split(syllable: str) -> tuple[int, str, str]:
    """Lead (a number), vowel and tail of a syllable."""
    index = ord(syllable) - FIRST
    return index // 588, VOWELS[index % 588 // 28], TAILS[index % 28]


def join(lead: int, vowel: str, tail: str = "") -> str:
    """The syllable of these three."""
    return chr(FIRST + (lead * 21 + VOWELS.index(vowel)) * 28 + TAILS.index(tail))


def tail(word: str) -> str:
    """The final consonant of a word, empty after a vowel."""
    return split(word[-1])[2]


def with_tail(word: str, consonant: str) -> str:
    """The word with its last syllable's final consonant replaced."""
    lead, vowel, _ = split(word[-1])
    return word[:-1] + join(lead, vowel, consonant)


class Noun(str):
    """A noun; the format spec is a particle, its form after a consonant first: 은/는, 이/가, 으로/로."""

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        after_consonant, _, after_vowel = spec.partition("/")
        last = tail(self)
        if not after_vowel:
            return self + spec
        if after_vowel == "로" and last == "ㄹ":
            return self + "로"
        return self + (after_consonant if last else after_vowel)


class Verb:
    """A verb or adjective by its stem; `kind` is its irregularity: ㅂ ㄷ ㅅ ㅎ 르, or nothing.

    Stems in 하, ㅡ and ㄹ need no kind. `adjective` changes the plain present and the modifier.
    """

    def __init__(self, stem: str, kind: str = "", adjective: bool = False):
        self.stem, self.kind, self.adjective = stem, kind, adjective

    def __format__(self, spec: str) -> str:
        return getattr(self, FORMS[spec])()

    def infinitive(self) -> str:
        """The form that -요, -서 and the past are made from: 가, 먹어, 해, 걸어, 도와, 몰라."""
        stem, kind = self.stem, self.kind
        if stem.endswith("하"):
            return stem[:-1] + "해"
        if kind == "ㅂ":
            return stem[:-2] + with_tail(stem[-2:], "") + ("와" if stem.endswith(("돕", "곱")) else "워")
        if kind == "ㅎ":  # 빨갛 -> 빨개, 하얗 -> 하얘
            lead, vowel, _ = split(stem[-1])
            return stem[:-1] + join(lead, {"ㅏ": "ㅐ", "ㅓ": "ㅐ", "ㅑ": "ㅒ"}[vowel])
        if kind == "르":
            before = with_tail(stem[:-1], "ㄹ")
            return before + ("라" if _is_bright(stem[-2]) else "러")
        if kind == "ㄷ":
            stem = with_tail(stem, "ㄹ")
        if kind == "ㅅ":
            return with_tail(stem, "") + ("아" if _is_bright(stem[-1]) else "어")
        lead, vowel, last = split(stem[-1])
        if last:
            return stem + ("아" if vowel in "ㅏㅗㅑ" else "어")
        if vowel == "ㅡ":
            bright = len(stem) > 1 and _is_bright(stem[-2])
            return stem[:-1] + join(lead, "ㅏ" if bright else "ㅓ")
        contracted = {"ㅗ": "ㅘ", "ㅜ": "ㅝ", "ㅣ": "ㅕ", "ㅚ": "ㅙ"}
        if vowel in contracted:
            return stem[:-1] + join(lead, contracted[vowel])
        return stem if vowel in "ㅏㅓㅐㅔㅕ" else stem + "어"

    def eu(self, ending: str) -> str:
        """The stem before an ending that begins with 으 after a consonant: 가면, 먹으면, 걸으면, 도우면, 살면."""
        stem, kind = self.stem, self.kind
        if kind == "ㅂ":
            return with_tail(stem, "") + "우" + ending
        if kind == "ㅎ":
            return with_tail(stem, "") + ending
        if kind == "ㄷ":
            return with_tail(stem, "ㄹ") + "으" + ending
        if kind == "ㅅ":
            return with_tail(stem, "") + "으" + ending
        return stem + ("으" if tail(stem) not in ("", "ㄹ") else "") + ending

    def _eu_tail(self, consonant: str) -> str:
        """The same for an ending that is only a final consonant: 간, 먹은, 걸은, 도운, 산."""
        form = self.eu("")
        if form == self.stem and tail(form) == "ㄹ":
            form = with_tail(form, "")
        return with_tail(form, consonant)

    def _without_l(self) -> str:
        return with_tail(self.stem, "") if tail(self.stem) == "ㄹ" else self.stem

    def past_stem(self) -> str:
        form = self.infinitive()
        return with_tail(form, "ㅆ")

    def dictionary(self) -> str:
        return self.stem + "다"

    def past(self) -> str:
        return self.past_stem() + "다"

    def present(self) -> str:
        if self.adjective:
            return self.dictionary()
        stem = self._without_l()
        return stem + "는다" if tail(stem) else with_tail(stem, "ㄴ") + "다"

    def polite(self) -> str:
        return self.infinitive() + "요"

    def past_polite(self) -> str:
        return self.past_stem() + "어요"

    def formal(self) -> str:
        stem = self._without_l()
        return stem + "습니다" if tail(stem) else with_tail(stem, "ㅂ") + "니다"

    def past_formal(self) -> str:
        return self.past_stem() + "습니다"

    def future(self) -> str:
        return self.will() + " 것이다"

    def will(self) -> str:
        return self._eu_tail("ㄹ")

    def and_(self) -> str:
        return self.stem + "고"

    def but(self) -> str:
        return self.past_stem() + "지만"

    def because(self) -> str:
        return self.infinitive() + "서"

    def since(self) -> str:
        if tail(self.stem) == "ㄹ":
            return self._without_l() + "니까"
        return self.eu("니까")

    def if_(self) -> str:
        return self.eu("면")

    def while_(self) -> str:
        return self.eu("면서")

    def in_order_to(self) -> str:
        return self.eu("려고")

    def modifier(self) -> str:
        return self.done() if self.adjective else self._without_l() + "는"

    def done(self) -> str:
        return self._eu_tail("ㄴ")

    def let_us(self) -> str:
        stem = self.stem
        return stem + "자"

    def not_(self) -> str:
        return self.stem + "지 않았다"

    def honorific(self) -> Verb:
        """The honorific verb: 가시, 읽으시, 사시, 걸으시, and the suppletive ones."""
        special = {"자": "주무시", "있": "계시", "먹": "드시", "마시": "드시"}
        if self.stem in special:
            return Verb(special[self.stem], adjective=self.adjective)
        if tail(self.stem) == "ㄹ":
            return Verb(self._without_l() + "시", adjective=self.adjective)
        return Verb(self.eu("시"), adjective=self.adjective)


def _is_bright(syllable: str) -> bool:
    return split(syllable)[1] in "ㅏㅗㅑ"


FORMS = {
    "": "dictionary",
    "past": "past",
    "present": "present",
    "polite": "polite",
    "past_polite": "past_polite",
    "formal": "formal",
    "past_formal": "past_formal",
    "future": "future",
    "ㄹ": "will",
    "고": "and_",
    "지만": "but",
    "서": "because",
    "니까": "since",
    "면": "if_",
    "면서": "while_",
    "려고": "in_order_to",
    "는": "modifier",
    "ㄴ": "done",
    "자": "let_us",
    "않았다": "not_",
    "아": "infinitive",
}
