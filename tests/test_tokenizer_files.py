"""A tokenizer of ours keeps all of its files, wherever and by whomever it is saved."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from eeve_axolotl import tokenizer_files
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import TOKENIZER_MANIFEST
from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.shown import opened

MODEL, CONFIG = "tokenizer.model", "tokenizer_config.json"


@pytest.fixture
def travelling(monkeypatch):
    """What the plugin does when it is registered, until the test is over."""
    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", PreTrainedTokenizerBase.save_pretrained)
    tokenizer_files.travel_with_tokenizers()
    tokenizer_files.travel_with_tokenizers()  # a second run in one process


@pytest.fixture
def ours(tmp_path, base_tokenizer_directory) -> Path:
    """A directory like an extended Llama-2's, `legacy` and all."""
    directory = tmp_path / "ours"
    shutil.copytree(base_tokenizer_directory, directory)
    config = json.loads((directory / CONFIG).read_text())
    config |= {"legacy": True, "add_bos_token": True, "chat_template": "{{ messages }}", "of_its_own": 1}
    (directory / CONFIG).write_text(json.dumps(config))
    (directory / TOKENIZER_MANIFEST).write_text('{"base_vocab_size": 31990}')
    return directory


def test_a_saved_tokenizer_has_its_files_and_reads_as_before(ours, travelling, tmp_path):
    before = AutoTokenizer.from_pretrained(ours)
    before.save_pretrained(tmp_path / "checkpoint-1")
    AutoTokenizer.from_pretrained(tmp_path / "checkpoint-1").save_pretrained(tmp_path / "merged")
    for place in (tmp_path / "checkpoint-1", tmp_path / "merged"):
        for name in (MODEL, TOKENIZER_MANIFEST):
            assert (place / name).read_bytes() == (ours / name).read_bytes()
        config = json.loads((place / CONFIG).read_text())
        assert config.items() >= {"legacy": True, "add_bos_token": True, "of_its_own": 1}.items()
        assert not config.keys() & {"is_local", "local_files_only"} and str(tmp_path) not in json.dumps(
            config
        )
        after = AutoTokenizer.from_pretrained(place)
        for text in ("<s>[INST] Hi", "</s><s>x", "  two"):
            assert after(text)["input_ids"] == before(text)["input_ids"]


def test_what_a_run_changed_stays_changed(ours, travelling, tmp_path):
    config = json.loads((ours / CONFIG).read_text())
    config["added_tokens_decoder"] = {"2": {"content": "</s>", "special": True}}
    (ours / CONFIG).write_text(json.dumps(config))
    tokenizer = AutoTokenizer.from_pretrained(ours)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.add_tokens(["<|im_start|>"])
    tokenizer.chat_template = "{{ another }}"
    tokenizer.save_pretrained(tmp_path / "out")
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (after.pad_token, after.chat_template) == ("<pad>", "{{ another }}")
    text = "<|im_start|>x<pad>"
    assert after(text)["input_ids"] == tokenizer(text)["input_ids"] and len(after) == len(tokenizer)


def test_a_tokenizer_that_is_not_ours_is_saved_as_transformers_does(ours, travelling, tmp_path):
    (ours / TOKENIZER_MANIFEST).unlink()
    AutoTokenizer.from_pretrained(ours).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / MODEL).exists()
    assert "of_its_own" in json.loads((tmp_path / "out" / CONFIG).read_text())


def test_saved_into_its_own_directory_nothing_is_lost(ours, travelling):
    before = (ours / MODEL).read_bytes()
    AutoTokenizer.from_pretrained(ours).save_pretrained(ours)
    assert (ours / MODEL).read_bytes() == before and (ours / TOKENIZER_MANIFEST).is_file()
    assert json.loads((ours / CONFIG).read_text())["legacy"] is True


def test_the_manifest_beside_a_model_does_not_make_it_a_tokenizer_to_overwrite(ours, tmp_path):
    (ours / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "a.txt").write_text("가")
    settings = TokenizerSettings(
        base="any", output=str(ours), overwrite=True, corpus=[Source(path=str(tmp_path / "a.txt"))]
    )
    with pytest.raises(EEVEError, match="has a model in it, so it is not overwritten"):
        build(settings)
    assert (ours / "model.safetensors").read_bytes() == b"weights"


def test_the_tokenizer_at_hand_is_none_of_a_model(ours, tmp_path, monkeypatch):
    for name, file in (("stage1", "model.safetensors"), ("begun", "config.json")):
        shutil.copytree(ours, tmp_path / name)
        (tmp_path / name / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert [each.name for each in opened([])] == ["ours"]


@pytest.fixture
def tuned(ours, tmp_path) -> Path:
    """A model as plain Axolotl leaves it after chat tuning with `ours`: two tokens more, and a new end of a sequence."""
    tokenizer = AutoTokenizer.from_pretrained(ours)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    directory = tmp_path / "tuned"
    tokenizer.save_pretrained(directory)
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("legacy", "of_its_own")})
    )
    (directory / MODEL).unlink(missing_ok=True)
    (directory / "config.json").write_text("{}")
    (directory / "generation_config.json").write_text('{"eos_token_id": 2, "of_its_own": 1}')
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_a_model_tuned_by_plain_axolotl_is_completed(ours, tuned):
    ids = AutoTokenizer.from_pretrained(tuned).get_vocab()
    done = tokenizer_files.complete_model(tuned, ours)
    assert len(done) == 5
    for name in (MODEL, TOKENIZER_MANIFEST):
        assert (tuned / name).read_bytes() == (ours / name).read_bytes()
    config = json.loads((tuned / CONFIG).read_text())
    assert config.items() >= {"legacy": True, "of_its_own": 1}.items()
    assert "<|im_end|>" in json.dumps(config["eos_token"])  # as it was tuned, not as the stages had it
    end = ids["<|im_end|>"]
    added = json.loads((tuned / "added_tokens.json").read_text())
    assert added == {token: ids[token] for token in added} and {"<|im_end|>", "<|im_start|>"} == added.keys()
    assert json.loads((tuned / "generation_config.json").read_text()) == {
        "eos_token_id": [2, end],
        "of_its_own": 1,
    }
    assert (tuned / "model.safetensors").read_bytes() == b"weights"
    files = {path.name: path.read_bytes() for path in tuned.iterdir()}
    tokenizer_files.complete_model(tuned, ours)
    assert files == {path.name: path.read_bytes() for path in tuned.iterdir()}  # twice is once


def test_what_is_not_of_this_tokenizer_is_refused_and_nothing_replaced(
    ours, tuned, base_tokenizer_directory, tmp_path
):
    def refused(model: Path, source: Path, words: str) -> None:
        before = {path.name: path.read_bytes() for path in model.iterdir()}
        with pytest.raises(EEVEError, match=words):
            tokenizer_files.complete_model(model, source)
        assert before == {path.name: path.read_bytes() for path in model.iterdir()}

    refused(tuned, base_tokenizer_directory, "is no tokenizer of ours")
    refused(ours, ours, "has no config.json; give the directory of the tuned model")
    (tuned / MODEL).write_bytes(b"somebody's own")
    refused(tuned, ours, "tokenizer.model is not .*; move it elsewhere")
    (tuned / MODEL).unlink()
    state = json.loads((tuned / "tokenizer.json").read_text())
    vocab = state["model"]["vocab"]
    one, other = list(vocab)[500:502]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    (tuned / "tokenizer.json").write_text(json.dumps(state))
    refused(tuned, ours, "was not tuned with")
