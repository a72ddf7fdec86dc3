import numpy as np
import pytest
from datatrove.data import Document as DatatroveDocument

from eeve_axolotl.corpus.perplexity import (
    CharacterModel,
    KenLM,
    PerplexityFilter,
    train_with_threshold,
)
from eeve_axolotl.errors import EEVEError
from tests.corpus.conftest import Maker


@pytest.fixture(scope="module")
def good() -> list[str]:
    maker = Maker(5)
    return [maker.document() for _ in range(120)]


def test_probabilities_of_all_characters_add_up_to_one():
    text = "abracadabra abracadabra"
    model = CharacterModel.train([text], order=3)

    # The probability of the last character, from the perplexity of the text with and without it.
    def log_p(text: str) -> float:
        return -np.log(model.perplexity(text)) * len(text)

    known = sorted(set(text))
    for start in ("abr", "c a", "zzz"):
        p = [np.exp(log_p(start + character) - log_p(start)) for character in [*known, "\u4e00"]]
        assert sum(p) == pytest.approx(1, abs=1e-4)


def test_running_text_surprises_less_than_scrambled_text(good):
    model = CharacterModel.train(good[:100])
    unseen = good[110]
    scrambled = "".join(np.random.default_rng(0).permutation(list(unseen)))
    assert model.perplexity(unseen) < model.perplexity(scrambled) / 3


def test_a_saved_model_gives_the_same_perplexity(good, tmp_path):
    model = CharacterModel.train(good)
    model.save(tmp_path / "model.npz")
    assert CharacterModel.load(tmp_path / "model.npz").perplexity("가나다 라마") == model.perplexity(
        "가나다 라마"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]


def test_the_threshold_keeps_the_asked_share_of_good_text(good):
    model, maximum = train_with_threshold(good, 0.5)
    one = PerplexityFilter(lambda: model, maximum)
    held_back = [one.filter(DatatroveDocument(text, "1")) is True for text in good[::10]]
    assert sum(held_back) / len(held_back) == pytest.approx(0.5, abs=0.1)


def test_too_little_good_text_is_refused():
    with pytest.raises(EEVEError, match="at least 20"):
        train_with_threshold(["글"] * 19, 0.9)


ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.3
-0.5\t</s>
-0.4\t날씨가\t-0.3
-0.6\t좋네요\t-0.3

\\2-grams:
-0.1\t<s> 날씨가
-0.2\t날씨가 좋네요

\\end\\
"""


def test_a_kenlm_model_scores_line_by_line(tmp_path):
    pytest.importorskip("kenlm", reason="kenlm is an optional extra")
    (tmp_path / "model.arpa").write_text(ARPA, "utf-8")
    model = KenLM(tmp_path / "model.arpa")
    # log10 p = -0.1 (after <s>) - 0.2 - (0.3 + 0.5) for the end, over three events
    assert model.perplexity("날씨가 좋네요") == pytest.approx(10 ** (1.1 / 3), rel=1e-4)
    assert model.perplexity("날씨가 좋네요\n날씨가 좋네요") == pytest.approx(10 ** (1.1 / 3), rel=1e-4)
    assert model.perplexity("xx yy") > model.perplexity("날씨가 좋네요")


def test_a_missing_or_broken_kenlm_file_is_named(tmp_path):
    pytest.importorskip("kenlm", reason="kenlm is an optional extra")
    with pytest.raises(EEVEError, match=r"nothing\.arpa .* does not exist"):
        KenLM(tmp_path / "nothing.arpa")
    (tmp_path / "broken.arpa").write_text("not a model")
    with pytest.raises(EEVEError, match=r"broken\.arpa is not a KenLM model"):
        KenLM(tmp_path / "broken.arpa")
