"""`axolotl eeve start` at its limits: odd texts, odd models, and places that must not be written over."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config

from eeve_axolotl import calibration, embeddings, files
from eeve_axolotl.calibration import command
from eeve_axolotl.calibration.states import check_logits
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.inspection import load
from eeve_axolotl.evaluation.scoring import with_bos
from tests.conftest import SMALL, tiny_llama
from tests.test_calibration import begin, ground, plain, started  # noqa: F401  fixtures


def read(ground, rounds, tokens: int):  # noqa: F811
    model, words = plain(ground)
    states = calibration.States.none(len(words), model.config.hidden_size)
    return calibration.read(model, words, iter(rounds), states, tokens, 64), states


def test_every_text_is_chosen_on_and_counted_however_many_there_are(ground, tmp_path):  # noqa: F811
    paths = []
    for name in "abcde":
        path = tmp_path / f"{name}.jsonl"
        lines = itertools.chain.from_iterable((f"{name} {n}", "") for n in range(20))
        path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        paths.append(str(path))
    held, states = read(ground, calibration.documents(paths), 10_000)
    assert sorted(held) == sorted(f"{name} {n}" for name in "abcde" for n in (4, 9, 14, 19))
    words = AutoTokenizer.from_pretrained(ground / "tokenizer")
    others = [f"{name} {n}" for name in "abcde" for n in range(20) if n % 5 != 4]
    assert states.number == sum(len(with_bos(words, each)) - 1 for each in others)  # none that is chosen on


def test_a_long_document_is_read_as_far_as_its_part_goes(ground):  # noqa: F811
    long, short = "the school is quiet now " * 5_000, "학교는 조용하다 " * 50
    held, states = read(ground, [(long, short)] * 5, 1_000)
    assert states.number == 1_000 and all(len(each) <= 1_000 for each in held)
    words = AutoTokenizer.from_pretrained(ground / "tokenizer")
    assert states.counts[with_bos(words, short)[1:]].sum() >= 400


def test_a_window_is_no_longer_than_the_models_context(ground, tmp_path):  # noqa: F811
    shutil.copytree(ground / "base", tmp_path / "base")
    shape = GPT2Config(vocab_size=SMALL, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "base")
    (tmp_path / "long.jsonl").write_text(
        (json.dumps({"text": "학교는 조용하다 지금 " * 60}) + "\n") * 5, encoding="utf-8"
    )
    begin(ground, tmp_path / "out", base=tmp_path / "base", texts=[str(tmp_path / "long.jsonl")], untie=True)
    assert (tmp_path / "out" / "eeve_start.json").is_file()


SCALED = {
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 8.0},
    "hyperclovax": {"logits_scaling": 8.0},
    "falcon_h1": {
        "lm_head_multiplier": 0.125, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["recurrent_gemma", "mpt"])
def test_caps_and_factors_of_other_names_are_known_or_known_to_be_without_effect(kind):
    of_its_own = {
        "recurrent_gemma": {"logits_soft_cap": 2.0, "lru_width": 16, "attention_window_size": 8},
        "mpt": {"logit_scale": "inv_sqrt_d_model", "d_model": 16, "n_layers": 1},  # not read by transformers
    }[kind]
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, **{**sizes, **of_its_own}, pad_token_id=0, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.get_output_embeddings().weight.data.mul_(100)
    check_logits(model, calibration.logits_of(config))
    assert calibration.logits_of(config).cap == (2.0 if kind == "recurrent_gemma" else None)


def test_a_model_that_does_what_is_not_known_to_its_logits_is_refused(ground):  # noqa: F811
    model, words = plain(ground)
    forward = type(model).forward

    def other(*given, **keys):
        made = forward(model, *given, **keys)
        made.logits = made.logits * 0.5
        return made

    model.forward = other
    with pytest.raises(EEVEError, match="LlamaForCausalLM does something to its logits"):
        calibration.calibrate(model, words, SMALL, iter([("학교는",)] * 9), tokens=99, max_length=64)


def test_text_without_any_new_token_is_refused(ground, tmp_path):  # noqa: F811
    (tmp_path / "english.jsonl").write_text((json.dumps({"text": "the school is quiet"}) + "\n") * 9)
    with pytest.raises(EEVEError, match="none of 24 new tokens comes in the .* tokens of text"):
        begin(ground, tmp_path / "out", texts=[str(tmp_path / "english.jsonl")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["a row that only text to fit to has", "a norm of 0"])
def test_states_that_no_row_can_be_fitted_to_are_told(ground, what):  # noqa: F811
    model, words = plain(ground)
    if what == "a norm of 0":
        model.model.norm.weight.data.zero_()
    else:
        model.get_input_embeddings().weight.data[words("z", add_special_tokens=False).input_ids[-1]] = float(
            "nan"
        )
    texts = [("z z 학교는 조용하다",), *[("학교는 조용하다",)] * 8]
    with pytest.raises(EEVEError, match="not finite, or 0 everywhere; give --dtype float32"):
        calibration.calibrate(model, words, SMALL, iter(texts), tokens=999, max_length=64)


def test_ids_without_a_token_have_the_same_rows_each_time(ground, tmp_path):  # noqa: F811
    shutil.copytree(ground / "tokenizer", tmp_path / "holes")
    path = tmp_path / "holes" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] += 5
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    drawn = torch.random.get_rng_state()
    one = load(ground / "base", tmp_path / "holes")[0].state_dict()
    assert torch.equal(torch.random.get_rng_state(), drawn)
    torch.rand(3)
    other = load(ground / "base", tmp_path / "holes")[0].state_dict()
    assert all(torch.equal(each, other[name]) for name, each in one.items())


@pytest.mark.parametrize("kind", SCALED)
def test_the_scale_of_logits_is_what_the_model_multiplies_by(kind):
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    try:
        config = AutoConfig.for_model(
            kind, **sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, **SCALED[kind]
        )
    except ValueError:
        pytest.skip(f"this transformers has no {kind}")
    model, products = AutoModelForCausalLM.from_config(config).eval(), []
    model.get_output_embeddings().register_forward_hook(lambda *given: products.append(given[2].detach()))
    with torch.no_grad():
        logits = model(input_ids=torch.arange(1, 9)[None]).logits
    assert torch.allclose(logits, products[0] * calibration.logits_of(config).scale, rtol=1e-4)


def test_what_is_read_and_what_a_stage_trained_is_not_replaced(ground, started, tmp_path):  # noqa: F811
    output = tmp_path / "started"
    shutil.copytree(started, output)
    before = {each.name: each.read_bytes() for each in output.iterdir()}
    for keys in ({"base": output}, {}):
        if not keys:
            (output / "eeve_stage.json").write_text("{}")
        with pytest.raises(EEVEError, match="which is read" if keys else "a stage has trained since"):
            begin(ground, output, **keys)
        assert {name: (output / name).read_bytes() for name in before} == before
    with pytest.raises(EEVEError, match="which is read"):
        calibration.start(str(ground / "base"), str(output), [str(ground / "text.jsonl")], output)


@pytest.mark.parametrize("at", ["save_pretrained", "iterdir"])
def test_killed_where_its_directory_must_stay_it_goes_on(ground, tmp_path, monkeypatch, at):  # noqa: F811
    """A mount point keeps its directory: what a killed run leaves lies in it."""
    output = tmp_path / "mount"
    monkeypatch.setattr(files, "_must_stay", lambda directory: True)
    output.mkdir()
    with monkeypatch.context() as killing:
        if at == "save_pretrained":
            killing.setattr(command, "write_json", _killed)
        else:
            killing.setattr(files, "_refill", _half_refilled)
        with pytest.raises(KeyboardInterrupt):
            begin(ground, output)
    assert list(output.iterdir())
    begin(ground, output)
    assert (output / "eeve_start.json").is_file() and not list(output.glob(".eeve*"))


def _killed(*_):
    raise KeyboardInterrupt


def _half_refilled(directory, new, old):
    old.mkdir()
    (new / "config.json").rename(directory / "config.json")
    raise KeyboardInterrupt


def test_a_base_that_the_tokenizer_does_not_extend_is_told(ground, tmp_path):  # noqa: F811
    shutil.copytree(ground / "base", tmp_path / "base")
    path = tmp_path / "base" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    one, other = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(EEVEError, match="does not extend the base model's"):
        begin(ground, tmp_path / "out", base=tmp_path / "base")
    assert not (tmp_path / "out").exists()


def test_a_broken_model_is_told_and_nothing_is_written(ground, tmp_path):  # noqa: F811
    shutil.copytree(ground / "base", tmp_path / "base")
    model = tiny_llama(SMALL, hidden_size=16)
    model.model.norm.weight.data.fill_(float("nan"))
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(EEVEError, match="nan bits per byte"):
        begin(ground, tmp_path / "out", base=tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EEVEError, match="no model and tokenizer at"):
        begin(ground, tmp_path / "out", base=tmp_path / "base")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_a_first_token_is_told(ground):  # noqa: F811
    words = AutoTokenizer.from_pretrained(ground / "tokenizer")
    words.bos_token = words.eos_token = None
    with pytest.raises(EEVEError, match="neither a bos_token nor an eos_token"):
        with_bos(words, "the school")


def test_a_model_with_fewer_rows_than_the_base_has_tokens_gets_the_rows_of_each_token(ground, tmp_path):  # noqa: F811
    tiny_llama(SMALL - 10, hidden_size=16).save_pretrained(tmp_path / "base")
    model, words = load(tmp_path / "base", ground / "tokenizer")
    weight = model.get_input_embeddings().weight.detach()
    for number, ids in enumerate(embeddings.subwords(words, SMALL)):
        assert torch.allclose(weight[SMALL + number], weight[ids].mean(0), atol=1e-6)
