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
    with pytest.raises(EEVEError, match="cannot be read.*build the tokenizer again"):
        vocabulary.manifest_base_size(tmp_path)


class Ids:
    """A tokenizer as far as a vocabulary asks: so many tokens in order, and some with ids of their own."""

    def __init__(self, tokens: int, **others: int):
        self.vocab = {f"t{i}": i for i in range(tokens)} | others

    def __len__(self):
        return len(self.vocab)

    def get_vocab(self):
        return self.vocab


HOLES = Ids(1400, eos=1800, bos=1801, pad=1802)
EXTENDED = Ids(1400, eos=1800, bos=1801, pad=1802, **{f"new{i}": 1803 + i for i in range(201)})


@pytest.mark.parametrize("rows", [1803, 2048], ids=["as many rows as ids", "padded"])
def test_new_ids_begin_after_the_highest_of_a_base_whose_ids_have_holes(rows):
    found = resolve(EXTENDED, rows, base_tokenizer=HOLES)
    assert (found.base_size, found.size, found.uninitialised_from) == (1803, 2004, 1803)
    assert found.new_tokens == 201


@pytest.mark.parametrize("new", [200, 50], ids=["more than the padding", "within the padding"])
def test_padding_rows_of_the_checkpoint_are_no_base_rows(new):
    """1,403 tokens in 1,536 rows, and no manifest (Qwen2.5, Phi-2)."""
    base = Ids(1403)
    found = resolve(Ids(1403 + new), 1536, base_tokenizer=base)
    assert (found.base_size, found.size, found.uninitialised_from) == (1403, 1403 + new, 1403)


@pytest.mark.parametrize("said", [1402, 1404])
@pytest.mark.parametrize("who", ["explicit", "manifest"])
def test_a_size_beside_the_base_tokenizers_is_refused(who, said):
    with pytest.raises(EEVEError, match=rf"said to have {said:,} tokens.*end at 1,403"):
        resolve(Ids(1500), 1403, base_tokenizer=Ids(1403), **{who: said})


@pytest.mark.parametrize("who", ["explicit", "manifest", "base_tokenizer"])
def test_an_extended_model_is_extended_once_more(who):
    """What an earlier extension added are base rows then."""
    mark = {"base_vocab_size": 1000, "vocab_size": 1200}
    evidence = {who: Ids(1200) if who == "base_tokenizer" else 1200}
    found = resolve(Ids(1350), 1200, mark=mark, **evidence)
    assert (found.base_size, found.size, found.uninitialised_from) == (1200, 1350, 1200)
    assert found.mark() == {"base_vocab_size": 1200, "vocab_size": 1350}


def test_a_larger_tokenizer_that_nothing_speaks_for_is_refused():
    with pytest.raises(EEVEError, match="tokenizer of the earlier stages"):
        resolve(Ids(1350), 1200, mark={"base_vocab_size": 1000, "vocab_size": 1200})


def test_a_name_that_is_no_directory_has_no_manifest_without_the_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert vocabulary.manifest_base_size("nobody/no-such-tokenizer") is None


def test_the_manifest_of_a_tokenizer_on_the_hub_is_found(tmp_path, monkeypatch):
    """In the hub's cache, as it lies there after a download."""
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--somebody--extended"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    (snapshot / TOKENIZER_MANIFEST).write_text(json.dumps({"base_vocab_size": 1234}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert vocabulary.manifest_base_size("somebody/extended") == 1234
