"""After the stages: the model in transformers and llama.cpp, chat tuning on top, another language on top."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import tiny_llama
from tests.corpus.conftest import Maker, write_jsonl
from tests.e2e import llama_cpp
from tests.e2e.helpers import run, write_recipe

pytestmark = pytest.mark.e2e

WRITTEN = 24  # tokens


def change(path: Path, **keys) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.fixture(scope="module")
def ground(tmp_path_factory, base_tokenizer_directory) -> Path:
    """SOLAR's tokenizer extended, and a small model that has learned a few sentences with it in `stage5`."""
    directory, maker = tmp_path_factory.mktemp("after"), Maker(seed=3, nouns=40)
    shutil.copytree(base_tokenizer_directory, directory / "base")
    change(directory / "base/tokenizer_config.json", legacy=True)  # as SOLAR's own says
    tiny_llama(32000, initializer_range=0.2).save_pretrained(directory / "base")
    write_jsonl(directory / "text.jsonl", [maker.document("ko", lines=1, sentences=2) for _ in range(4)] * 30)
    tokenizer = {"base": "base", "output": "tokenizer", "corpus": [{"path": "text.jsonl"}], "new_tokens": 60,
                 "intermediate_vocab_size": 300, "min_count": 2}  # fmt: skip
    (directory / "tokenizer.yml").write_text(yaml.safe_dump(tokenizer))
    run(directory, "eeve", "tokenizer", "tokenizer.yml")
    everything = {"input_embeddings": "all", "output_embeddings": "all", "internal_layers": "full"}
    run(directory, "train", write_recipe(directory, 5, "./base", eeve=everything, max_steps=60))
    return directory


@pytest.fixture(scope="module")
def gguf(ground) -> Path:
    llama_cpp.needed()
    file = ground / "stage5.gguf"
    done = llama_cpp.convert(ground / "stage5", file)
    assert done.returncode == 0, done.stdout[-3000:]
    return file


def greedy(model: Path, prompt: str, **generate) -> tuple[list[int], str]:
    """What plain transformers puts after a prompt: the ids, and the text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    given = tokenizer(prompt, return_tensors="pt")
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    whole = loaded.generate(**given, max_new_tokens=WRITTEN, do_sample=False, pad_token_id=0, **generate)[0]
    ids = whole[given["input_ids"].shape[1] :].tolist()
    return ids, tokenizer.decode(ids)


def prompts() -> list[str]:
    korean = Maker(seed=8, nouns=40).korean_sentence()
    return [korean[:9].rstrip(), "The weather is nice"]


@pytest.mark.parametrize("prompt", prompts())
def test_llama_cpp_writes_what_transformers_writes(ground, gguf, prompt):
    ids, text = greedy(ground / "stage5", prompt)
    theirs, their_text = llama_cpp.continued(gguf, prompt, WRITTEN)
    assert theirs == ids
    assert their_text.strip() == text.strip()
    if prompt == prompts()[0]:
        assert max(ids) >= 32000  # new tokens too


def test_tokenizer_model_has_travelled_to_the_weights_with_the_new_tokens(ground):
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(ground / "stage5" / "tokenizer.model"))
    assert model.vocab_size() == json.loads((ground / "stage5/config.json").read_text())["vocab_size"] > 32000


def test_another_language_goes_on_top_and_leaves_the_first_ones_rows(ground):
    words = "καλημέρα θάλασσα ουρανός γλώσσα δρόμος βουνό λουλούδι".split()
    write_jsonl(ground / "greek.jsonl", [" ".join(words[n % 7 :] + words[: n % 5]) for n in range(60)])
    tokenizer = {"base": "stage5", "output": "tokenizer2", "corpus": [{"path": "greek.jsonl"}], "script": ["Greek"],
                 "new_tokens": 30, "intermediate_vocab_size": 150, "min_count": 1}  # fmt: skip
    (ground / "again.yml").write_text(yaml.safe_dump(tokenizer))
    run(ground, "eeve", "tokenizer", "again.yml")
    text = [{"path": "./greek.jsonl", "type": "completion"}]
    changes = {"tokenizer_config": "./tokenizer2", "datasets": text, "output_dir": "./greek3"}
    run(ground, "train", write_recipe(ground, 3, "./stage5", **changes))
    before, after = (load_file(ground / name / "model.safetensors") for name in ("stage5", "greek3"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        old = len(before[name])
        assert old > 32000 and len(after[name]) > old
        assert torch.equal(before[name], after[name][:old])
