"""The base is what its own tokenizer.json says, and what is written is read as the base by whoever loads it."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer import reloading
from tests.tokenizer.test_byte_level import KINDS, extend, hangul

TEMPLATE = "{% for each in messages %}<|start|>{{ each.content }}<|end|>{% endfor %}"


def labelled(directory: Path, name: str, kind: str = "llama3") -> Path:
    """A byte-level base of `kind` whose tokenizer_config.json names another class."""
    KINDS[kind]().save_pretrained(directory)
    file = directory / "tokenizer_config.json"
    config = {"tokenizer_class": name, "chat_template": TEMPLATE, "model_max_length": 77, "of_its_own": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return directory


def llama2(directory: Path, model: Path) -> Path:
    """A base of Llama-2's kind: its tokenizer.json puts a ▁ before everything, as `legacy` means."""
    shutil.copytree(model, directory)
    file = directory / "tokenizer.json"
    state = json.loads(file.read_text())
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    state["normalizer"] = {
        "type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]
    }  # fmt: skip
    file.write_text(json.dumps({**state, "pre_tokenizer": None}))
    _config(directory, legacy=True)
    return directory


def _config(directory: Path, **keys) -> dict:
    file = directory / "tokenizer_config.json"
    config = json.loads(file.read_text()) | keys
    file.write_text(json.dumps(config))
    return config


def same_as(base: Path, extended: Path) -> None:
    """Every reader of the extended tokenizer gives the ids that the base's own tokenizer.json gives."""
    own = Tokenizer.from_file(str(base / "tokenizer.json"))
    texts = [text for text in reloading.texts_for(own) if not any("가" <= char <= "힣" for char in text)]
    assert len(texts) > 30
    want = [own.encode(text).ids for text in texts]
    assert [Tokenizer.from_file(str(extended / "tokenizer.json")).encode(text).ids for text in texts] == want
    again = AutoTokenizer.from_pretrained(extended)
    assert [again(text)["input_ids"] for text in texts] == want


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "LlamaTokenizer", "LlamaTokenizerFast"])
def test_a_base_that_transformers_misreads_is_extended_as_its_own_file_says(name, tmp_path, caplog):
    base = labelled(tmp_path / "base", name)
    own = Tokenizer.from_file(str(base / "tokenizer.json"))
    text = "def f(x):\n    return {x}\n"
    assert AutoTokenizer.from_pretrained(base)(text)["input_ids"] != own.encode(text).ids
    assert extend(base, hangul(), tmp_path / "extended")["unreachable"] == 0
    same_as(base, tmp_path / "extended")
    assert f"with {name.removesuffix('Fast')}, reads the base otherwise" in caplog.text


@pytest.mark.parametrize("with_file", [True, False], ids=["tokenizer.json", "tokenizer.model"])
def test_legacy_is_kept(with_file, base_tokenizer_directory, tmp_path):
    if with_file:
        base = llama2(tmp_path / "base", base_tokenizer_directory)
    else:
        base = tmp_path / "base"
        shutil.copytree(base_tokenizer_directory, base)
        (base / "tokenizer.json").unlink()
        _config(base, legacy=True)
    reads = bases.load(str(base))
    extend(base, hangul(words=2000), tmp_path / "extended", new_tokens=40)
    after = AutoTokenizer.from_pretrained(tmp_path / "extended")
    for text in ("<s>[INST] Hi", " one", "  two", "</s><s>x", "a  b "):
        assert after(text)["input_ids"] == reads(text)["input_ids"]
    if with_file:
        same_as(base, tmp_path / "extended")
    assert json.loads((tmp_path / "extended" / "tokenizer_config.json").read_text())["legacy"] is True


def test_the_config_is_the_base_s_and_says_nothing_of_the_place(tmp_path):
    base = labelled(tmp_path / "base", "PreTrainedTokenizerFast")
    _config(base, special_tokens_map_file=f"{tmp_path}/a/special_tokens_map.json", name_or_path=str(tmp_path))
    extend(base, hangul(), tmp_path / "extended")
    config = json.loads((tmp_path / "extended" / "tokenizer_config.json").read_text())
    assert not config.keys() & {"is_local", "local_files_only", "name_or_path", "special_tokens_map_file"}
    assert str(tmp_path) not in json.dumps(config)
    kept = {"chat_template": TEMPLATE, "model_max_length": 77, "of_its_own": 1, "eos_token": "<|end|>"}
    assert config.items() >= kept.items() and config["tokenizer_class"] == "PreTrainedTokenizerFast"
    after = AutoTokenizer.from_pretrained(tmp_path / "extended")
    assert after.apply_chat_template([{"content": "x"}], tokenize=False) == "<|start|>x<|end|>"


def test_what_is_read_otherwise_after_writing_is_not_written(tmp_path, monkeypatch):
    base, output, write = (
        labelled(tmp_path / "base", "PreTrainedTokenizerFast"),
        tmp_path / "out",
        reloading.write,
    )

    def write_wrongly(*args):
        write(*args)
        _config(args[-1], tokenizer_class="GPT2Tokenizer")

    monkeypatch.setattr(reloading, "write", write_wrongly)
    with pytest.raises(
        EEVEError, match="AutoTokenizer reads the extended tokenizer otherwise .*: '.+' becomes"
    ):
        extend(base, hangul(), output)
    assert not output.exists()


def test_other_tokens_than_the_base_s_are_not_written(tmp_path, monkeypatch):
    base, output, write = (
        labelled(tmp_path / "base", "PreTrainedTokenizerFast"),
        tmp_path / "out",
        reloading.write,
    )

    def with_a_merge_too_many(base, name, state, directory):
        merges = [merge for merge in state["model"]["merges"] if merge != ["t", "h"]]
        write(base, name, {**state, "model": {**state["model"], "merges": merges}}, directory)

    monkeypatch.setattr(reloading, "write", with_a_merge_too_many)
    with pytest.raises(EEVEError, match=r"other tokens than the base: .*doesn.*they.* becomes"):
        extend(base, hangul(), output)
    assert not output.exists()


def test_a_model_s_config_that_makes_transformers_misread_it_stops_the_build(tmp_path):
    """Beside a model of the type qwen2 transformers takes Qwen's pattern, whatever the tokenizer's own."""
    base = labelled(tmp_path / "base", "PreTrainedTokenizerFast", kind="gpt2")
    (base / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(
        EEVEError, match="beside the model's config.json, reads the extended tokenizer otherwise"
    ):
        extend(base, hangul(), tmp_path / "extended")


def test_a_normalizer_is_no_difference(tmp_path):
    base = tmp_path / "base"
    KINDS["qwen"]().save_pretrained(base)
    assert Tokenizer.from_file(str(base / "tokenizer.json")).normalizer.__class__ is normalizers.NFC
    extend(base, hangul(), tmp_path / "extended")
    same_as(base, tmp_path / "extended")


def test_two_tokens_of_one_id_are_refused(tmp_path):
    KINDS["llama3"]().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    state = json.loads(file.read_text())
    del state["model"]["vocab"]["'"]  # a hole, and <|start|> is numbered by the vocabulary's length
    state["model"]["merges"] = [pair for pair in state["model"]["merges"] if "'" not in "".join(pair)]
    state["model"]["vocab"] = {t: i for t, i in state["model"]["vocab"].items() if "'" not in t}
    file.write_text(json.dumps(state))
    with pytest.raises(EEVEError, match="to both"):
        bases.load(str(tmp_path))
