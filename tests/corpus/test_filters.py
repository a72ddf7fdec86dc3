import random

import pytest
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.filters import GopherRepetitionFilter

from eeve_axolotl.corpus.filters import (
    FragmentFilter,
    LengthFilter,
    RepetitionFilter,
    ScriptFilter,
    StopwordFilter,
    script_share,
)
from eeve_axolotl.corpus.languages import LANGUAGES
from eeve_axolotl.corpus.text import WORDS, normalise
from tests.corpus.conftest import Maker

MENU = "로그인\n회원가입\n장바구니\n고객센터\n홈\n공지사항\n이벤트\n최근 본 상품"


def kept(one, text: str) -> bool:
    return one.filter(DatatroveDocument(text, "1")) is True


def test_normal_form_is_composed_and_has_no_invisible_characters():
    assert normalise("\ufeff\u1112\u1161\u11ab글\u200b 글  \r\n\r\n\r\n\r\n끝\x00") == "한글 글\n\n끝"


def test_normalising_twice_changes_nothing():
    once = normalise("a \u00ad\r\n\n\n\n b\t\n")
    assert normalise(once) == once


def test_script_share_counts_letters_only():
    assert script_share("한글 abc 123!!", ("Hangul",)) == pytest.approx(2 / 5)
    assert script_share("123 !!", ("Hangul",)) == 0


def test_text_of_another_script_is_dropped():
    one = ScriptFilter(("Hangul",), 0.5)
    assert kept(one, Maker().korean_sentence())
    assert not kept(one, Maker().english_sentence())
    assert not kept(one, "これは日本語の文章です。")


def test_menus_have_too_few_stopwords_and_too_many_fragments():
    korean = LANGUAGES["ko"]
    stopwords = StopwordFilter(korean.stopwords, korean.endings, 0.15)
    sentence = Maker().korean_sentence()
    assert kept(stopwords, sentence) and kept(FragmentFilter(0.67), "\n".join([sentence] * 6))
    assert not kept(stopwords, MENU)
    assert not kept(FragmentFilter(0.67), MENU)


def test_another_language_in_the_same_script_has_too_few_stopwords():
    english = LANGUAGES["en"]
    one = StopwordFilter(english.stopwords, english.endings, 0.15)
    assert kept(one, "The weather is nice today, and that is all there is to say about it.")
    assert not kept(one, "Das Wetter ist heute sehr schön und mehr gibt es dazu nicht zu sagen.")


def test_short_text_is_dropped_by_length():
    assert kept(LengthFilter(5), "12345") and not kept(LengthFilter(5), "1234")


def test_repeated_lines_and_phrases_are_dropped():
    sentence = Maker().korean_sentence()
    assert not kept(RepetitionFilter(), "\n".join([sentence] * 5))
    assert not kept(RepetitionFilter(), " ".join(["지금 바로 구매하세요"] * 40))
    assert kept(RepetitionFilter(), Maker().document())


def test_a_short_text_is_not_repetition_because_its_one_n_gram_is_a_large_share_of_it():
    text = "미국 캔자스주에서 사형제도는 합법적인 처벌이지만 거의 사용되지 않는다."
    assert not kept(GopherRepetitionFilter(language=WORDS), text)
    assert kept(RepetitionFilter(), text)


def test_the_quick_look_never_changes_what_datatroves_rules_decide():
    quick, whole = RepetitionFilter(short=0), GopherRepetitionFilter(language=WORDS)
    maker, dice = Maker(3), random.Random(3)
    decisions = set()
    for _ in range(300):
        words = [maker.korean_sentence(4) for _ in range(dice.randint(1, 12))]
        text = dice.choice(["\n", " "]).join(dice.choices(words, k=dice.randint(1, 25)))
        decision = whole.filter(DatatroveDocument(text, "1"))
        decisions.add(decision if decision is True else decision[1])
        assert quick.filter(DatatroveDocument(text, "1")) == decision
    assert len(decisions) > 4  # the texts really exercise several rules
