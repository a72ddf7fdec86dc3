"""Greek forms of the second demo's generator, against forms known to be right, and its stories."""

import re
import sys
from collections import Counter

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "examples" / "demo"))

from stories import generate
from stories.greek import Adjective, Noun, final_n


@pytest.mark.parametrize(
    ("noun", "spec", "form"),
    [
        ("ο σκύλος", "ο", "ο σκύλος"), ("ο σκύλος", "τον", "τον σκύλο"), ("ο σκύλος", "ένας", "ένας σκύλος"),
        ("ο χάρτης", "έναν", "έναν χάρτη"), ("ο παππούς", "στον", "στον παππού"), ("ο πατέρας", "τον", "τον πατέρα"),
        ("η γάτα", "Ο", "Η γάτα"), ("η αγορά", "στον", "στην αγορά"), ("η κούκλα", "ένας", "μια κούκλα"),
        ("το βιβλίο", "τον", "το βιβλίο"), ("το πάρκο", "Στον", "Στο πάρκο"), ("το κλειδί", "έναν-", "ένα"),
        ("ο Νίκος", "voc", "Νίκο"), ("ο Γιάννης", "voc", "Γιάννη"), ("η Μαρία", "voc", "Μαρία"), ("ο Πέτρος", "", "Πέτρος"),
    ],
)  # fmt: skip
def test_a_noun_has_its_article_and_case(noun, spec, form):
    assert format(Noun(noun), spec) == form


@pytest.mark.parametrize(
    ("adjective", "spec", "form"),
    [
        ("μικρός", "nom m", "μικρός"), ("μικρός", "acc m", "μικρό"), ("μικρός", "nom f", "μικρή"), ("μικρός", "acc n", "μικρό"),
        ("παλιός", "nom f", "παλιά"), ("ωραίος", "acc f", "ωραία"), ("γαλάζιος", "nom m", "γαλάζιος"),
        ("γαλάζιος", "acc f", "γαλάζια"), ("όμορφος", "nom f", "όμορφη"), ("κουρασμένος", "nom f", "κουρασμένη"),
    ],
)  # fmt: skip
def test_an_adjective_agrees_with_its_noun(adjective, spec, form):
    assert format(Adjective(adjective), spec) == form


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("την γάτα", "τη γάτα"), ("στην μητέρα", "στη μητέρα"), ("την Ζωή", "τη Ζωή"), ("την τσάντα", "την τσάντα"),
        ("την ομπρέλα", "την ομπρέλα"), ("την πάπια", "την πάπια"), ("την κούκλα", "την κούκλα"), ("τον δρόμο", "τον δρόμο"),
        ("Την Δευτέρα", "Τη Δευτέρα"), ("την ντομάτα", "την ντομάτα"), ("στην γκαράζ", "στην γκαράζ"),
    ],
)  # fmt: skip
def test_the_final_n_stays_where_it_is_heard(written, spelled):
    assert final_n(written) == spelled


def test_greek_stories_are_whole_varied_and_never_held_out_ones():
    texts = list(generate("el", seed=1, documents=3_000))
    assert texts == list(generate("el", seed=1, documents=3_000))
    held_out = set(generate("el", seed=1, documents=300, held_out=True))
    assert not held_out & set(texts)
    for text in texts:
        assert not re.search(r"[{}|A-Za-z]|  ", text) and text[-1] in ".!;»ΑΆηςαίήνοω", text
    words = Counter(re.findall(r"\w+", " ".join(texts)))
    assert sum(count >= 50 for count in words.values()) >= 300
    assert len(set(texts)) > 2_900
