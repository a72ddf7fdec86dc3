"""The words of the stories: each a pair, Korean and English, so that one plot can be told in both."""

from __future__ import annotations

from stories.english import Act, Word
from stories.korean import Noun, Verb


def nouns(text: str) -> list[tuple[Noun, Word]]:
    """Pairs from lines "한국어 = English"."""
    pairs = (line.split("=") for line in text.strip().splitlines())
    return [(Noun(korean.strip()), Word(english.strip())) for korean, english in pairs]


NAMES = nouns("""
민준 = Minjun
서연 = Seoyeon
지호 = Jiho
하은 = Haeun
도윤 = Doyun
수아 = Sua
예준 = Yejun
지우 = Jiu
은서 = Eunseo
현우 = Hyeonu
유나 = Yuna
태호 = Taeho
나래 = Narae
보람 = Boram
한결 = Hangyeol
슬기 = Seulgi
재민 = Jaemin
소희 = Sohui
영호 = Yeongho
미선 = Miseon
""")

ELDERS = nouns("""
할머니 = grandmother
할아버지 = grandfather
어머니 = mother
아버지 = father
이모 = aunt
삼촌 = uncle
""")

PLACES = nouns("""
시장 = market
도서관 = library
공원 = park
학교 = school
바닷가 = seaside
서점 = bookshop
우체국 = post office
박물관 = museum
빵집 = bakery
기차역 = train station
강가 = riverside
동물원 = zoo
미술관 = art gallery
운동장 = playground
꽃집 = flower shop
마을 회관 = village hall
""")

THINGS = nouns("""
우산 = umbrella
가방 = bag
공책 = notebook
열쇠 = key
모자 = hat
사진 = photograph
편지 = letter
시계 = watch
연필 = pencil
장갑 = glove
목도리 = scarf
지도 = map
그림책 = picture book
인형 = doll
자전거 = bicycle
피리 = flute
등불 = lantern
상자 = box
""")

FOODS = nouns("""
김밥 = seaweed roll
만두 = dumpling
떡 = rice cake
사과 = apple
귤 = tangerine
감자 = potato
수박 = watermelon
옥수수 = ear of corn
호박죽 = bowl of pumpkin soup
빵 = loaf of bread
배 = pear
고구마 = sweet potato
딸기 = strawberry
국수 = bowl of noodles
""")

CROPS = nouns("""
감자 = potato
고구마 = sweet potato
사과 = apple
배 = pear
딸기 = strawberry
옥수수 = ear of corn
호박 = pumpkin
당근 = carrot
버섯 = mushroom
오이 = cucumber
""")

ANIMALS = nouns("""
강아지 = puppy
고양이 = cat
토끼 = rabbit
거북이 = turtle
참새 = sparrow
다람쥐 = squirrel
오리 = duck
염소 = goat
""")

TIMES = nouns("""
월요일 아침 = on Monday morning
화요일 오후 = on Tuesday afternoon
수요일 저녁 = on Wednesday evening
목요일 아침 = on Thursday morning
금요일 오후 = on Friday afternoon
토요일 아침 = on Saturday morning
일요일 오후 = on Sunday afternoon
어느 봄날 = one spring day
어느 여름날 = one summer day
어느 가을날 = one autumn day
어느 겨울날 = one winter day
지난 주말 = last weekend
""")

DAYS = TIMES[:7]

# Korean counts hours, years and pieces with its own numbers, minutes, lessons and money with Chinese ones.
NUMBERS = nouns("""
두 = two
세 = three
네 = four
다섯 = five
여섯 = six
일곱 = seven
""")

SINO_NUMBERS = nouns("""
이 = two
삼 = three
사 = four
오 = five
육 = six
칠 = seven
""")

# Adjectives of things.
QUALITIES = [
    (Verb("작", adjective=True), Word("small")),
    (Verb("크", adjective=True), Word("big")),
    (Verb("빨갛", "ㅎ", True), Word("red")),
    (Verb("하얗", "ㅎ", True), Word("white")),
    (Verb("파랗", "ㅎ", True), Word("blue")),
    (Verb("노랗", "ㅎ", True), Word("yellow")),
    (Verb("가볍", "ㅂ", True), Word("light")),
    (Verb("무겁", "ㅂ", True), Word("heavy")),
    (Verb("예쁘", adjective=True), Word("pretty")),
    (Verb("낡", adjective=True), Word("old")),
    (Verb("아름답", "ㅂ", True), Word("beautiful")),
    (Verb("귀엽", "ㅂ", True), Word("cute")),
]

ANIMAL_QUALITIES = [QUALITIES[n] for n in (0, 1, 3, 8, 11)]

# How somebody feels.
FEELINGS = [
    (Verb("기쁘", adjective=True), Word("happy")),
    (Verb("슬프", adjective=True), Word("sad")),
    (Verb("즐겁", "ㅂ", True), Word("cheerful")),
    (Verb("고맙", "ㅂ", True), Word("thankful")),
    (Verb("외롭", "ㅂ", True), Word("lonely")),
    (Verb("놀라"), Word("surprised")),
    (Verb("부끄럽", "ㅂ", True), Word("shy")),
    (Verb("피곤하", adjective=True), Word("tired")),
    (Verb("배고프", adjective=True), Word("hungry")),
    (Verb("행복하", adjective=True), Word("glad")),
]

# What the weather is.
WEATHER = [
    (Verb("춥", "ㅂ", True), Word("cold")),
    (Verb("덥", "ㅂ", True), Word("hot")),
    (Verb("따뜻하", adjective=True), Word("warm")),
    (Verb("시원하", adjective=True), Word("cool")),
    (Verb("맑", adjective=True), Word("clear")),
    (Verb("흐리", adjective=True), Word("cloudy")),
]

# Ways to go somewhere.
MOVES = [
    (Verb("가"), Act("go", "went")),
    (Verb("걸어가"), Act("walk")),
    (Verb("뛰어가"), Act("run", "ran", "running")),
    (Verb("서둘러 가"), Act("hurry")),
    (Verb("달려가"), Act("race")),
    (Verb("돌아가"), Act("return")),
]

# What one does with a thing.
DEEDS = [
    (Verb("찾"), Act("find", "found")),
    (Verb("사"), Act("buy", "bought")),
    (Verb("고치"), Act("fix")),
    (Verb("그리"), Act("draw", "drew")),
    (Verb("씻"), Act("clean")),
    (Verb("나르", "르"), Act("carry")),
    (Verb("보여 주"), Act("show", "showed")),
    (Verb("만들"), Act("make", "made")),
    (Verb("고르", "르"), Act("choose", "chose")),
    (Verb("들"), Act("hold", "held")),
    (Verb("빌리"), Act("borrow")),
    (Verb("감추"), Act("hide", "hid")),
]

# What one does of an evening, or together.
PASTIMES = [
    (Verb("노래를 부르", "르"), Act("sing", "sang")),
    (Verb("책을 읽"), Act("read a book", "read a book", "reading a book")),
    (Verb("음악을 듣", "ㄷ"), Act("listen to music", "listened to music", "listening to music")),
    (Verb("일기를 쓰"), Act("write a diary", "wrote a diary", "writing a diary")),
    (Verb("그림을 그리"), Act("paint a picture", "painted a picture", "painting a picture")),
    (Verb("차를 마시"), Act("drink tea", "drank tea", "drinking tea")),
    (Verb("길을 걷", "ㄷ"), Act("take a walk", "took a walk", "taking a walk")),
    (Verb("이야기를 나누"), Act("talk", "talked", "talking")),
    (Verb("밥을 짓", "ㅅ"), Act("cook rice", "cooked rice", "cooking rice")),
    (Verb("친구를 돕", "ㅂ"), Act("help a friend", "helped a friend", "helping a friend")),
    (Verb("꽃을 심"), Act("plant flowers", "planted flowers", "planting flowers")),
]

SLOTS = {
    "who": NAMES, "friend": NAMES, "elder": ELDERS, "place": PLACES, "other": PLACES, "thing": THINGS, "gift": THINGS,
    "food": FOODS, "snack": FOODS,
    "animal": ANIMALS, "time": TIMES, "day": DAYS, "crop": CROPS,
    "n": NUMBERS, "m": NUMBERS, "s": SINO_NUMBERS, "like": QUALITIES,
    "how": QUALITIES, "feel": FEELINGS, "mood": FEELINGS, "sky": WEATHER, "air": WEATHER, "go": MOVES, "come": MOVES,
    "kind": ANIMAL_QUALITIES,
    "do": DEEDS, "act": DEEDS, "play": PASTIMES, "rest": PASTIMES,
}  # fmt: skip
