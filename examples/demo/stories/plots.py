"""The plots: each a list of steps, each step a choice of sentences, each sentence in Korean and English.

Slots are names from lexicon.SLOTS; after the colon stands the particle or the verb's form. An empty
sentence among a step's choices makes the step optional.
"""

OPENINGS = [
    ("{time:이었다/였다}.", "It was {time}."),
    ("{time}, 날씨가 {sky:고} 바람이 불었다.", "{time:cap}, the weather was {sky} and the wind blew."),
    ("{time}에 {who:은/는} 일찍 일어났다.", "{who} got up early {time}."),
    ("날씨가 {sky:서} {who:은/는} 창문을 열었다.", "The weather was {sky}, so {who} opened the window."),
    (
        "{who:과/와} {friend:은/는} 같은 동네에 사는 친구이다.",
        "{who} and {friend} are friends who live in the same town.",
    ),
    (
        "옛날에 {who:이라는/라는} 아이가 {place} 근처에 살았다.",
        "Once there was a child named {who} who lived near the {place}.",
    ),
]

ENDINGS = [
    ("{who:은/는} 정말 {feel:past}.", "{who} was really {feel}."),
    ("그날 밤 {who:은/는} {play:고} 일찍 잠들었다.", "That night {who} {play:past} and fell asleep early."),
    (
        "두 사람은 다음에도 {place:으로/로} 함께 가기로 약속했다.",
        "The two promised to go to the {place} together again.",
    ),
    (
        "집에 돌아온 {who:은/는} {elder}에게 모든 이야기를 했다.",
        "Back at home, {who} told {elder} the whole story.",
    ),
    ("{elder:은/는} 웃으면서 고개를 끄덕이셨다.", "{elder:cap} smiled and nodded."),
    (
        "{who:은/는} 오늘을 오래 기억할 것이라고 생각했다.",
        '{who} thought, "I will remember this day for a long time."',
    ),
    (
        "내일도 날씨가 {air:면} 좋겠다고 {who:이/가} 말했다.",
        '"I hope it will be {air} tomorrow too," said {who}.',
    ),
]

LOST = [
    [
        (
            "{who:은/는} {place}에서 {like:는} {thing:을/를} 잃어버렸다.",
            "{who} lost {like:a} {thing} at the {place}.",
        ),
        (
            "{place:으로/로} 가는 길에 {who:은/는} {thing:이/가} 없어진 것을 알았다.",
            "On the way to the {place}, {who} noticed that the {thing} was gone.",
        ),
    ],
    [
        (
            "{thing:은/는} {elder:이/가} 주신 것이어서 {who:은/는} 무척 슬펐다.",
            "The {thing} was a present from {elder}, so {who} was very sad.",
        ),
        (
            "{who:은/는} 그 {thing:을/를} 아주 아꼈기 때문에 눈물이 났다.",
            "{who} loved that {thing}, and so tears came.",
        ),
    ],
    [
        (
            '"{friend:아/야}, 내 {thing:을/를} 봤어?" 하고 {who:이/가} 물었다.',
            '"{friend}, have you seen my {thing}?" asked {who}.',
        ),
        ("{who:은/는} {friend}에게 도와 달라고 부탁했다.", "{who} asked {friend} for help."),
    ],
    [
        (
            "두 친구는 {place}에서 {other}까지 {go:면서} 찾아보았다.",
            "The two friends looked everywhere as they walked from the {place} to the {other}.",
        ),
        (
            "{friend:은/는} {other:으로/로} {come:고} {who:은/는} {place}에 남았다.",
            "{friend} {come:past} to the {other}, and {who} stayed at the {place}.",
        ),
    ],
    [
        (
            "그때 {kind:는} {animal:이/가} 나무 뒤에서 {thing:을/를} 물고 나왔다.",
            "Then {kind:a} {animal} came out from behind a tree with the {thing} in its mouth.",
        ),
        (
            "{thing:은/는} 의자 밑에 있었고, {animal} 한 마리가 그 위에서 자고 있었다.",
            "The {thing} was under a bench, and {animal:a} was sleeping on it.",
        ),
        (
            "알고 보니 {other}에서 일하는 아저씨가 {thing:을/를} 맡아 두었다.",
            "It turned out that a man who worked at the {other} had kept the {thing}.",
        ),
    ],
    [
        (
            "{who:은/는} 고마워서 {friend}에게 {food} {n} 개를 주었다.",
            "{who} was thankful and gave {friend} {n} pieces of food: {food:a} and more.",
        ),
        ("", ""),
    ],
]

MARKET = [
    [
        ("{who:은/는} {elder:과/와} 함께 시장에 갔다.", "{who} went to the market with {elder}."),
        (
            "{elder:이/가} 시장에 가자고 하셔서 {who:은/는} 따라나섰다.",
            "{elder:cap} wanted to go to the market, so {who} came along.",
        ),
    ],
    [
        (
            "시장에는 사람이 많고 {food:과/와} {snack} 냄새가 났다.",
            "The market was full of people, and it smelled of {food:a} and {snack:a}.",
        ),
        ("가게마다 {food:이/가} 가득 쌓여 있었다.", "Every shop had more than {n} kinds of food."),
    ],
    [
        ('"{food} {n} 개에 얼마예요?" {who:이/가} 물었다.', '"How much for {food:a}?" asked {who}.'),
        (
            "{elder:은/는} {food} {n} 개와 {snack} {m} 개를 고르셨다.",
            "{elder:cap} chose {food:a} and {snack:a}.",
        ),
    ],
    [
        ('"{n} 개에 {s}천 원입니다. 아주 맛있습니다."', '"That is {s} coins. It is very good."'),
        ("주인은 {snack} 하나를 더 주면서 웃었다.", "The owner smiled and gave one more: {snack:a}."),
    ],
    [
        ("{who:은/는} {like:는} {gift:을/를} 보고 걸음을 멈췄다.", "{who} saw {like:a} {gift} and stopped."),
        (
            "옆 가게의 {gift:은/는} 다른 것보다 더 {how:past}.",
            "The {gift} in the next shop was more {how} than the others.",
        ),
    ],
    [
        ("{elder:은/는} {who}에게 그 {gift:을/를} 사 주셨다.", "{elder:cap} bought that {gift} for {who}."),
        (
            "돈이 모자라서 {who:은/는} 그냥 구경만 했다.",
            "There was not enough money, so {who} only looked at it.",
        ),
    ],
    [
        (
            "집에 와서 {elder:은/는} {food:을/를} 씻어 저녁을 차리셨다.",
            "At home, {elder} washed the food and made dinner.",
        ),
        (
            "짐이 무거웠지만 {who:이/가} 끝까지 들었다.",
            "The bags were heavy, but {who} carried them all the way.",
        ),
    ],
]

TRAIN = [
    [
        ("{who:은/는} {friend:을/를} 만나려고 기차를 탔다.", "{who} took the train to meet {friend}."),
        (
            "{n} 시에 떠나는 기차를 놓치지 않으려고 {who:은/는} 기차역으로 {go:past}.",
            "{who} {go:past} to the station so as not to miss the train at {n} o'clock.",
        ),
    ],
    [
        (
            "기차 안에서 {who:은/는} {food:을/를} 먹으면서 창밖을 보았다.",
            "On the train, {who} ate {food:a} and looked out of the window.",
        ),
        (
            "옆자리에 앉은 할머니께서 {food:을/를} 나누어 주셨다.",
            "An old woman in the next seat shared {food:a}.",
        ),
    ],
    [
        (
            "산과 강을 지나자 {like:는} {place:이/가} 보였다.",
            "After the mountains and the river came a {like} {place}.",
        ),
        ("비가 그치고 하늘이 {sky:past}.", "The rain stopped and the sky was {sky}."),
    ],
    [
        (
            "{m} 시간이 지나서 {friend:이/가} 사는 마을에 도착했다.",
            "After {m} hours the train reached the village where {friend} lived.",
        ),
        (
            '"어서 와, 오래 기다렸어." {friend:이/가} 손을 흔들면서 말했다.',
            '"Welcome, I waited a long time," said {friend}, waving a hand.',
        ),
    ],
    [
        (
            "두 사람은 {place}에서 {play:고} {other}에서 {rest:past}.",
            "The two {play:past} at the {place} and {rest:past} at the {other}.",
        ),
        (
            "{friend:은/는} {who}에게 {like:는} {gift:을/를} 보여 주었다.",
            "{friend} showed {who} {like:a} {gift}.",
        ),
    ],
    [
        (
            "헤어질 때 {who:은/는} {feel:past}, 그래서 편지를 쓰겠다고 했다.",
            "When they parted, {who} was {feel} and promised to write.",
        ),
        ("", ""),
    ],
]

LETTER = [
    [
        ("{friend}에게.", "Dear {friend},"),
        ("보고 싶은 {friend}에게.", "My dear friend {friend},"),
    ],
    [
        (
            "그동안 잘 지냈어요? 여기는 날씨가 {sky:고} 꽃이 피었어요.",
            "How have you been? Here it is {sky} and the flowers are out.",
        ),
        ("편지를 받고 무척 {feel:past_polite}.", "I was very {feel} when I got your letter."),
    ],
    [
        ("{time}에 {elder:을/를} 모시고 {place}에 다녀왔어요.", "{time:cap} I took {elder} to the {place}."),
        ("요즘 나는 {place}에서 {play:고} 있어요.", "These days I often {play} at the {place}."),
    ],
    [
        ("거기에서 {like:는} {gift:을/를} {do:past_polite}.", "There I {do:past} {like:a} {gift}."),
        (
            "{elder:은/는} {food:을/를} 아주 맛있게 드셨어요.",
            "{elder:cap} liked the food very much; we had {food:a}.",
        ),
    ],
    [
        (
            "당신이 오면 함께 {other:으로/로} 가서 {rest:려고} 해요.",
            "When you come, let us go to the {other} and {rest} together.",
        ),
        (
            "{animal:이/가} {n} 마리나 태어나서 집이 시끄러워요.",
            "We have {n} baby animals now, and the loudest is {animal:a}.",
        ),
    ],
    [
        ("답장을 기다릴게요. 건강하세요.", "I will wait for your answer. Stay well."),
        ("다음 달에 꼭 만나요.", "Let us meet next month."),
    ],
    [("{who} 올림.", "Yours, {who}.")],
]

COOKING = [
    [
        ("오늘은 {crop:을/를} 넣은 음식을 만들어 봅시다.", "Today let us cook something with {crop:a}."),
        ("{elder:께서} 가르쳐 주신 요리를 소개합니다.", "Here is a dish that {elder} taught me."),
    ],
    [("먼저 {crop} {n} 개를 깨끗이 씻습니다.", "First wash the food well and count {n} pieces.")],
    [
        ("칼로 작게 썰어서 그릇에 담습니다.", "Cut it small with a knife and put it in a bowl."),
        ("{snack:도} 있으면 함께 넣으면 좋습니다.", "If you have {snack:a}, add that too."),
    ],
    [
        (
            "물이 끓으면 소금을 조금 넣고 {s} 분 동안 기다립니다.",
            "When the water boils, add a little salt and wait {s} minutes.",
        ),
        (
            "약한 불에서 {s} 분쯤 구우면 맛있는 냄새가 납니다.",
            "Bake it on a low fire for about {s} minutes until it smells good.",
        ),
    ],
    [
        ("너무 뜨거우니까 조심하세요.", "Be careful, because it is very hot."),
        ("날씨가 {sky:면} 차갑게 먹어도 됩니다.", "If the weather is {sky}, you can eat it cold."),
    ],
    [
        (
            "{who:은/는} 이 음식을 {friend}보다 더 좋아합니다.",
            "{who} likes this dish more than {friend} does.",
        ),
        ("완성되면 {elder:께} 먼저 드립니다.", "When it is ready, give some to {elder} first."),
    ],
]

NOTICE = [
    [
        (
            "알립니다. {day}에 {place}에서 잔치가 열립니다.",
            "Notice: there will be a festival at the {place} {day}.",
        ),
        ("{place:은/는} {day}에 문을 닫습니다.", "The {place} will be closed {day}."),
    ],
    [
        ("{n} 시부터 {m} 시까지 누구나 들어올 수 있습니다.", "Everyone may enter from {n} to {m} o'clock."),
        ("비가 오면 {other:으로/로} 자리를 옮깁니다.", "If it rains, we will move to the {other}."),
    ],
    [
        (
            "아이들은 {elder:과/와} 함께 오시기 바랍니다.",
            "Children should come with a parent or with {elder}.",
        ),
        (
            "{food:과/와} {snack:을/를} 무료로 나누어 드립니다.",
            "There will be free food: {food:a} and {snack:a}.",
        ),
    ],
    [
        (
            "{like:는} {thing:을/를} 가져오는 분께는 선물을 드립니다.",
            "Whoever brings {like:a} {thing} will get a present.",
        ),
        ("{animal:을/를} 데리고 들어올 수 없습니다.", "You cannot bring {animal:a}."),
    ],
    [
        ("궁금한 점은 {who:이라는/라는} 직원에게 물어보십시오.", "If you have questions, please ask {who}."),
        ("많은 관심을 부탁드립니다.", "Thank you for your interest."),
    ],
]

DIARY = [
    [("{time}. 날씨: {sky:고} 바람이 조금 불었다.", "{time:cap}. Weather: {sky}, with a little wind.")],
    [
        ("오늘 학교에서 {friend:과/와} 함께 {play:past}.", "Today at school I {play:past} with {friend}."),
        (
            "오늘은 {place}에 가서 {thing:을/를} {do:past}.",
            "Today I went to the {place} and {do:past} a {thing}.",
        ),
    ],
    [
        ("처음에는 조금 부끄러웠지만 곧 괜찮아졌다.", "At first I was a little shy, but soon I felt better."),
        ("선생님께서 내 {gift:을/를} 보고 칭찬하셨다.", "The teacher looked at my {gift} and praised it."),
    ],
    [
        (
            "{friend:이/가} {like:는} {gift:을/를} 빌려 달라고 했지만 나는 빌려주지 않았다.",
            "{friend} asked for my {like} {gift}, but I did not lend it.",
        ),
        (
            "점심에는 {food:을/를} 먹었는데 {snack}보다 맛있었다.",
            "For lunch I had {food:a}, and it was better than {snack:a}.",
        ),
    ],
    [
        (
            "저녁에 {elder:께서} 주무시기 전에 옛날이야기를 들려주셨다.",
            "In the evening {elder} told me an old story before going to bed.",
        ),
        ("집에 오는 길에 {kind:는} {animal:을/를} 만났다.", "On the way home I met {kind:a} {animal}."),
    ],
    [
        ("내일은 더 일찍 일어나서 {rest:려고} 한다.", "Tomorrow I will get up earlier and {rest}."),
        ("오늘은 참 {mood:ㄴ} 하루였다.", "Today I felt really {mood}."),
    ],
]

ANIMAL = [
    [
        (
            "{place} 옆 숲에 {kind:는} {animal} 한 마리가 살았다.",
            "In a wood by the {place} lived {kind:a} {animal}.",
        ),
        (
            "{who:은/는} {n} 살 된 {animal:을/를} 키운다.",
            "{who} has a pet that is {n} years old: {animal:a}.",
        ),
    ],
    [
        (
            "{animal:은/는} 매일 아침 {food:을/를} 먹고 싶어 했다.",
            "Every morning the {animal} wanted {food:a}.",
        ),
        (
            "어느 날 {animal:이/가} {thing:을/를} 물고 {place:으로/로} {go:past}.",
            "One day the {animal} took a {thing} and {go:past} to the {place}.",
        ),
    ],
    [
        (
            "비가 많이 와서 길이 미끄럽고 {animal:은/는} {feel:past}.",
            "It rained so hard that the road was wet, and the {animal} was {feel}.",
        ),
        (
            "그러나 길을 몰라서 {animal:은/는} 한참 동안 헤맸다.",
            "But the {animal} did not know the way and wandered for a long time.",
        ),
    ],
    [
        (
            "{who:이/가} 이름을 부르자 {animal:이/가} 달려왔다.",
            "When {who} called its name, the {animal} came running.",
        ),
        (
            "지나가던 {friend:이/가} {animal:을/를} 보고 집까지 데려다주었다.",
            "{friend}, who was passing by, saw the {animal} and took it home.",
        ),
    ],
    [
        (
            "{who:은/는} 젖은 {animal:을/를} 따뜻한 물로 씻어 주었다.",
            "{who} washed the wet {animal} with warm water.",
        ),
        (
            "그 뒤로 {animal:은/는} {who:을/를} 졸졸 따라다녔다.",
            "From then on the {animal} followed {who} everywhere.",
        ),
    ],
]

GIFT = [
    [
        (
            "내일은 {elder}의 생신이어서 {who:은/는} 선물을 고르려고 했다.",
            "Tomorrow is the birthday of {elder}, so {who} wanted a present.",
        ),
        (
            "{who:은/는} {friend}의 생일에 {gift:을/를} 주기로 했다.",
            "{who} decided to give {friend} a {gift} for a birthday.",
        ),
    ],
    [
        (
            "{who:은/는} {place}에서 {how:는} {gift:을/를} {do:past}.",
            "{who} {do:past} {how:a} {gift} at the {place}.",
        ),
        (
            "{place}에는 {n} 가지 {gift:이/가} 있었지만 모두 비쌌다.",
            "There were {n} kinds at the {place}, but every {gift} was expensive.",
        ),
    ],
    [
        (
            "{like:는} 것보다 {how:는} 것이 낫다고 {friend:이/가} 말했다.",
            '"Better {how} than {like}," said {friend}.',
        ),
        (
            "{who:은/는} 직접 만들면 더 좋을 것이라고 생각했다.",
            "{who} thought it would be better to make it by hand.",
        ),
    ],
    [
        (
            "{who:은/는} {m} 시간 동안 쉬지 않고 {gift:을/를} 만들었다.",
            "{who} made the {gift} for {m} hours without rest.",
        ),
        (
            "포장지가 없어서 {like:는} 종이로 쌌다.",
            "There was no wrapping paper, so {who} used {like} paper.",
        ),
    ],
    [
        (
            '{elder:은/는} 선물을 받고 "정말 고맙구나" 하고 말씀하셨다.',
            '{elder:cap} took the present and said, "Thank you so much."',
        ),
        (
            "선물을 받은 사람도 주는 사람도 {feel:past}.",
            "Both the one who gave and the one who got it were {feel}.",
        ),
    ],
]

SCHOOL = [
    [
        ("{s} 교시는 음악 시간이었다.", "Lesson number {s} was music."),
        (
            "선생님은 아이들에게 {place}에 대해 쓰라고 하셨다.",
            "The teacher told the children to write about the {place}.",
        ),
    ],
    [
        (
            '{who:은/는} 손을 들고 물었다. "선생님, {thing:은/는} 어디에 있어요?"',
            '{who} raised a hand. "Teacher, where is the {thing}?"',
        ),
        (
            "{friend:은/는} 답을 알았지만 부끄러워서 말하지 못했다.",
            "{friend} knew the answer but was too shy to speak.",
        ),
    ],
    [
        ("선생님은 {like:는} {thing:을/를} 들어 보이셨다.", "The teacher held up {like:a} {thing}."),
        (
            "쉬는 시간에 아이들은 운동장에서 {play:past}.",
            "In the break the children {play:past} on the playground.",
        ),
    ],
    [
        ("{who:이/가} 크게 읽으면 모두가 따라 읽었다.", "When {who} read aloud, everyone repeated it."),
        (
            "숙제가 어려우니까 함께 하자고 {friend:이/가} 말했다.",
            '"The homework is hard, so let us do it together," said {friend}.',
        ),
    ],
    [
        (
            "수업이 끝나고 두 사람은 {place:으로/로} {go:past}.",
            "After school the two {go:past} to the {place}.",
        ),
        ("종이 울리자 {who:은/는} {feel:past}.", "When the bell rang, {who} was {feel}."),
    ],
]

STORY_PLOTS = [LOST, MARKET, TRAIN, ANIMAL, GIFT, SCHOOL]
PLAIN_PLOTS = [LETTER, COOKING, NOTICE, DIARY]
