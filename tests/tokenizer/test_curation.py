"""What a person allows and refuses is what the tokenizer has, and nothing comes out of reach for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.base import extended_state, model_of
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.curation import Curation, read_list
from eeve_axolotl.tokenizer.rules import SelectionRules
from eeve_axolotl.tokenizer.select import select
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from tests.conftest import corpus


def listed(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def built(base_tokenizer_directory, tmp_path):
    """A function: (manifest, tokenizer, decision for each candidate) from real text, with some settings."""

    def make(**settings):
        build(
            TokenizerSettings(
                base=str(base_tokenizer_directory), output=str(tmp_path / "tokenizer"), overwrite=True,
                corpus=[{"path": str(corpus("sample_ko_en.jsonl.gz"))}], new_tokens=300, min_count=8,
                intermediate_vocab_size=2500, work_directory=str(tmp_path / "work"), keep_work=True, **settings,
            )
        )  # fmt: skip
        directory = tmp_path / "tokenizer"
        lines = (directory / "candidates.tsv").read_text(encoding="utf-8").splitlines()[1:]
        decisions = {columns[0]: columns[3] for columns in (line.split("\t") for line in lines)}
        manifest = json.loads((directory / "eeve_tokenizer.json").read_text(encoding="utf-8"))
        return manifest, Tokenizer.from_file(str(directory / "tokenizer.json")), decisions

    return make


def test_lists_and_patterns_hold_in_a_build(built, tmp_path):
    before = list(built()[0]["counts"])
    letter = next(token for token in before if len(token) == 1)
    word = next(token for token in before if len(token.lstrip("▁")) == 2)
    long = [token for token in before if len(token.lstrip("▁")) > 3]
    pattern = next(token[-1] for token in before if len(token) > 2 and token[-1] != letter)
    assert long
    rare = "쀍뚫꿻"
    manifest, tokenizer, decisions = built(
        deny=listed(tmp_path / "deny.txt", f"{letter}  # a letter", "# nothing", "", word),
        allow=[listed(tmp_path / "allow.txt", rare)],
        reject=[f"..{pattern}$"],
        max_token_length=3,
        round_vocab_to=64,
    )
    tokens = set(manifest["counts"])
    assert not tokens & {letter, word, *long}
    assert not [token for token in tokens if len(token) > 2 and token[-1] == pattern]
    assert decisions[letter] == decisions[word] == "deny"
    assert decisions[long[0]] in ("longer than 3", f"reject: ..{pattern}$")
    assert rare in tokens and manifest["counts"][rare] == 0
    assert rare in tokenizer.encode(f"x{rare}", add_special_tokens=False).tokens
    assert manifest["unreachable"] == 0
    assert manifest["vocab_size"] % 64 == 0
    assert 300 - 64 < len(tokens) <= 300


def test_what_a_refused_token_was_part_of_is_made_another_way_or_dropped(state, table_of):
    table = table_of("가나다라 x가나다라 x나다 x다라 x가나 x라가 " * 50)
    rules = SelectionRules(
        first_id=len(state["model"]["vocab"]), new_tokens=None, intermediate_vocab_size=50, min_count=3, max_rounds=50
    )  # fmt: skip
    free = select(state, table, rules)
    refused = next(token for token in free.tokens if len(token) == 2 and "▁" not in token)
    selection = select(state, table, replace(rules, curation=Curation(deny=frozenset([refused]))))
    assert refused not in selection.tokens
    model = model_of(extended_state(state, selection.tokens, rules.first_id))
    for token in selection.tokens:
        assert model.encode(token, add_special_tokens=False).tokens == [token]


@pytest.mark.parametrize("token", ["가나다라", "▁가나다라", "▁뷁"])
def test_allowed_tokens_are_reached_whatever_else_there_is(token, state, splitter, table_of, tmp_path):
    curation = Curation.read(splitter, allow=[listed(tmp_path / "allow", token)])
    table = table_of("나다 라가 다라 나다라 " * 20)
    rules = SelectionRules(
        first_id=len(state["model"]["vocab"]), new_tokens=8, intermediate_vocab_size=50,
        min_count=3, max_rounds=50, curation=curation,
    )  # fmt: skip
    selection = select(state, table, rules)
    assert token in selection.tokens
    model = model_of(extended_state(state, selection.tokens, len(state["model"]["vocab"])))
    assert model.encode(token, add_special_tokens=False).tokens == [token]


def test_refusals_say_why(splitter, tmp_path):
    curation = Curation.read(
        splitter,
        allow=[listed(tmp_path / "allow", "▁가나")],
        deny=[listed(tmp_path / "deny", "▁나", "다")],
        reject=["가.*나"],
        max_length=3,
    )
    assert curation.refusal("▁나") == curation.refusal("다") == "deny"
    assert curation.refusal("가나") == "reject: 가.*나"
    assert curation.refusal("▁나나나나") == "longer than 3"
    assert [curation.refusal(token) for token in ("▁가나", "▁가", "가", "▁나나나")] == [None] * 4


def test_a_list_without_its_file_is_an_error(tmp_path):
    with pytest.raises(EEVEError, match="no list of tokens.*give a UTF-8 text file"):
        read_list(tmp_path / "missing")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"reject": ["("]}, "reject: '\\(' is not a regular expression"),
        ({"allow": ["the"]}, "allow: 'the' is not letters of Hangul"),
        ({"allow": ["가 나"]}, "allow: '가 나' is not letters of Hangul"),
        ({"allow": ["가나"], "deny": ["가"]}, "deny has 가, which is in `allow`"),
    ],
)
def test_what_cannot_hold_is_an_error(settings, message, splitter, tmp_path):
    for name in ("allow", "deny"):
        if name in settings:
            settings = {**settings, name: [listed(tmp_path / name, *settings[name])]}
    with pytest.raises(EEVEError, match=message):
        Curation.read(splitter, **settings)
