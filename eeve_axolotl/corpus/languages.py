"""What the language and stopword filters know of a language. Short lists, this project's own choice.

The paper names a stopword filter (3.1) and publishes neither list nor threshold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """`scripts` are Unicode script names; a word counts as a stopword if it is one of `stopwords` or ends
    in one of `endings` (and is longer than it)."""

    scripts: tuple[str, ...]
    stopwords: frozenset[str]
    endings: tuple[str, ...] = ()


# Korean attaches its function words: what marks a running sentence is how its words end. A menu or a list
# of keywords ("로그인 회원가입 고객센터") has hardly any such ending.
_KO_ENDINGS = (
    "은 는 이 가 을 를 의 에 에서 에게 로 으로 와 과 도 만 부터 까지 보다 처럼 라고 고 며 면 서 지만 "
    "니다 습니다 세요 어요 아요 네요 "
    "해요 죠 다 던 된 한 할 하는 되는 있는 없는 하고 하여 해서"
)
_KO_WORDS = "및 또는 그리고 그러나 하지만 이 그 저 수 것 등 때 더 안 잘 못 왜 좀 정말 너무 다른 모든 같은 위해 대한 통해"
_EN_WORDS = (
    "the of and to a in is that it for on was as with be by at this are or an from have not but which you he "
    "his her they we i my your our their its were has had will would can could if when there been one all so "
    "what who no do more about up out into than them then some such these those only also other may any"
)

LANGUAGES = {
    "ko": Language(("Hangul",), frozenset(_KO_WORDS.split()), tuple(_KO_ENDINGS.split())),
    "en": Language(("Latin",), frozenset(_EN_WORDS.split())),
}
