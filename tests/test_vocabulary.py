"""Which rows are new, and every disagreement about it."""

import json

import pytest

from eeve_axolotl import vocabulary
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import TOKENIZER_MANIFEST
from tests.conftest import extended

BASE = 32000


@pytest.fixture(scope="module")
def tokenizer(base_tokenizer):
    return extended(base_tokenizer, ["안녕", "▁학교"])


def resolve(tokenizer, rows, **kwargs):
    return vocabulary.resolve(tokenizer, rows, **{"needs_new_rows": True, **kwargs})


def test_new_rows_are_inferred_from_a_tokenizer_larger_than_the_model(tokenizer):
    found = resolve(tokenizer, BASE)
    assert (found.base_size, found.size, found.uninitialised_from) == (BASE, len(tokenizer), BASE)


def test_a_marked_model_needs_no_rows_initialised(tokenizer):
    mark = resolve(tokenizer, BASE).mark()
    found = resolve(tokenizer, len(tokenizer), mark=mark)
    assert found.base_size == BASE and found.uninitialised_from == len(tokenizer)


def test_rows_beyond_the_base_models_own_tokenizer_are_padding_and_initialised(tokenizer, base_tokenizer):
    found = resolve(tokenizer, BASE + 64, manifest=BASE, base_tokenizer=base_tokenizer)
    assert found.uninitialised_from == BASE


def test_rows_added_by_another_tool_are_kept(tokenizer):
    found = resolve(tokenizer, len(tokenizer), explicit=BASE)
    assert found.uninitialised_from == len(tokenizer)


def test_a_tokenizer_that_is_not_extended_is_refused_for_new_rows_only(base_tokenizer):
    with pytest.raises(EEVEError, match="no new rows to train.*tokenizer_config"):
        resolve(base_tokenizer, BASE)
    assert resolve(base_tokenizer, BASE, needs_new_rows=False).new_tokens == 0


def test_a_tokenizer_smaller_than_the_base_vocabulary_is_refused(base_tokenizer):
    with pytest.raises(EEVEError, match="fewer than the 40,000"):
        resolve(base_tokenizer, 40000, explicit=40000)


def test_a_tokenizer_smaller_than_the_model_has_no_new_rows(base_tokenizer):
    with pytest.raises(EEVEError, match="the tokenizer has 32,000 tokens and the model 40,960 rows"):
        resolve(base_tokenizer, 40960)


def test_a_tokenizer_smaller_than_the_base_models_own_is_refused(tokenizer, base_tokenizer):
    with pytest.raises(EEVEError, match=f"does not extend the base model's: id {BASE} is None"):
        resolve(base_tokenizer, len(tokenizer), needs_new_rows=False, base_tokenizer=tokenizer)


def test_another_tokenizer_than_the_earlier_stages_is_refused(tokenizer, base_tokenizer):
    mark = resolve(tokenizer, BASE).mark()
    with pytest.raises(EEVEError, match="tokenizer of the earlier stages"):
        resolve(base_tokenizer, len(tokenizer), mark=mark)


def test_a_tokenizer_whose_first_ids_are_not_the_bases_is_refused(tokenizer, base_tokenizer):
    class Shifted:
        def __len__(self):
            return BASE

        def get_vocab(self):
            return {piece: (i + 1) % BASE for piece, i in base_tokenizer.get_vocab().items()}

    with pytest.raises(EEVEError, match="does not extend the base model's: id 0"):
        resolve(tokenizer, BASE, base_tokenizer=Shifted())


def test_disagreeing_sizes_are_named(tokenizer):
    with pytest.raises(
        EEVEError, match=r"eeve.base_vocab_size says 31,000, the tokenizer's manifest says 32,000"
    ):
        resolve(tokenizer, BASE, explicit=31000, manifest=BASE)


def test_the_manifest_is_read_and_a_broken_one_refused(tmp_path):
    assert vocabulary.manifest_base_size(tmp_path) is None
    manifest = tmp_path / TOKENIZER_MANIFEST
    manifest.write_text(json.dumps({"base_vocab_size": BASE}))
    assert vocabulary.manifest_base_size(tmp_path) == BASE
    manifest.write_text("{")
    with pytest.raises(EEVEError, match="not a tokenizer manifest"):
        vocabulary.manifest_base_size(tmp_path)
