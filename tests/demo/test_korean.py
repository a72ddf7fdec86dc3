"""Korean forms of the demo's generator, against forms known to be right."""

import sys

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "examples" / "demo"))

from stories.korean import Noun, Verb


@pytest.mark.parametrize(
    ("word", "particle", "form"),
    [
        ("학교", "은/는", "학교는"), ("책", "은/는", "책은"), ("누나", "이/가", "누나가"), ("형", "이/가", "형이"),
        ("우유", "을/를", "우유를"), ("빵", "을/를", "빵을"), ("개", "과/와", "개와"), ("말", "과/와", "말과"),
        ("학교", "으로/로", "학교로"), ("집", "으로/로", "집으로"), ("서울", "으로/로", "서울로"),
        ("교실", "으로/로", "교실로"), ("집", "에서", "집에서"), ("민준", "이라고/라고", "민준이라고"),
    ],
)  # fmt: skip
def test_a_particle_follows_the_last_sound(word, particle, form):
    assert format(Noun(word), particle) == form


@pytest.mark.parametrize(
    ("stem", "kind", "form"),
    [
        ("가", "", "갔다"), ("오", "", "왔다"), ("마시", "", "마셨다"), ("보내", "", "보냈다"), ("하", "", "했다"),
        ("먹", "", "먹었다"), ("살", "", "살았다"), ("걷", "ㄷ", "걸었다"), ("듣", "ㄷ", "들었다"), ("묻", "ㄷ", "물었다"),
        ("돕", "ㅂ", "도왔다"), ("친구를 돕", "ㅂ", "친구를 도왔다"), ("춥", "ㅂ", "추웠다"), ("굽", "ㅂ", "구웠다"), ("고맙", "ㅂ", "고마웠다"),
        ("아름답", "ㅂ", "아름다웠다"), ("모르", "르", "몰랐다"), ("부르", "르", "불렀다"), ("빠르", "르", "빨랐다"),
        ("짓", "ㅅ", "지었다"), ("낫", "ㅅ", "나았다"), ("빨갛", "ㅎ", "빨갰다"), ("하얗", "ㅎ", "하얬다"),
        ("쓰", "", "썼다"), ("바쁘", "", "바빴다"), ("기쁘", "", "기뻤다"), ("끄", "", "껐다"), ("배우", "", "배웠다"),
        ("주", "", "줬다"), ("쉬", "", "쉬었다"), ("되", "", "됐다"), ("서", "", "섰다"), ("켜", "", "켰다"),
        ("만들", "", "만들었다"), ("읽", "", "읽었다"), ("앉", "", "앉았다"), ("공부하", "", "공부했다"),
        ("작", "", "작았다"), ("입", "", "입었다"), ("씻", "", "씻었다"), ("닫", "", "닫았다"),
    ],
)  # fmt: skip
def test_the_past(stem, kind, form):
    assert format(Verb(stem, kind), "past") == form


@pytest.mark.parametrize(
    ("verb", "spec", "form"),
    [
        (Verb("살"), "formal", "삽니다"), (Verb("만들"), "formal", "만듭니다"), (Verb("먹"), "formal", "먹습니다"),
        (Verb("가"), "formal", "갑니다"), (Verb("걷", "ㄷ"), "formal", "걷습니다"), (Verb("먹"), "past_formal", "먹었습니다"),
        (Verb("살"), "는", "사는"), (Verb("만들"), "는", "만드는"), (Verb("읽"), "는", "읽는"),
        (Verb("춥", "ㅂ", True), "는", "추운"), (Verb("빨갛", "ㅎ", True), "는", "빨간"), (Verb("작", "", True), "는", "작은"),
        (Verb("길", "", True), "는", "긴"), (Verb("크", "", True), "는", "큰"), (Verb("짓", "ㅅ"), "ㄴ", "지은"),
        (Verb("걷", "ㄷ"), "ㄴ", "걸은"), (Verb("살"), "ㄴ", "산"), (Verb("돕", "ㅂ"), "ㄴ", "도운"), (Verb("듣", "ㄷ"), "ㄹ", "들을"),
        (Verb("가"), "future", "갈 것이다"), (Verb("돕", "ㅂ"), "future", "도울 것이다"), (Verb("만들"), "future", "만들 것이다"),
        (Verb("걷", "ㄷ"), "면", "걸으면"), (Verb("살"), "면", "살면"), (Verb("돕", "ㅂ"), "면", "도우면"),
        (Verb("빨갛", "ㅎ"), "면", "빨가면"), (Verb("모르", "르"), "면", "모르면"), (Verb("먹"), "면", "먹으면"),
        (Verb("살"), "니까", "사니까"), (Verb("먹"), "니까", "먹으니까"), (Verb("춥", "ㅂ"), "니까", "추우니까"),
        (Verb("춥", "ㅂ"), "서", "추워서"), (Verb("가"), "서", "가서"), (Verb("하"), "고", "하고"), (Verb("사"), "려고", "사려고"),
        (Verb("만들"), "려고", "만들려고"), (Verb("찾"), "려고", "찾으려고"), (Verb("듣", "ㄷ"), "려고", "들으려고"),
        (Verb("먹"), "present", "먹는다"), (Verb("가"), "present", "간다"), (Verb("살"), "present", "산다"),
        (Verb("춥", "ㅂ", True), "present", "춥다"), (Verb("오"), "polite", "와요"), (Verb("쓰"), "polite", "써요"),
        (Verb("가").honorific(), "past", "가셨다"), (Verb("읽").honorific(), "past", "읽으셨다"),
        (Verb("자").honorific(), "past", "주무셨다"), (Verb("있").honorific(), "past", "계셨다"),
        (Verb("살").honorific(), "past", "사셨다"), (Verb("걷", "ㄷ").honorific(), "past", "걸으셨다"),
        (Verb("돕", "ㅂ").honorific(), "past_polite", "도우셨어요"), (Verb("먹").honorific(), "past", "드셨다"),
    ],
)  # fmt: skip
def test_the_other_forms(verb, spec, form):
    assert format(verb, spec) == form
