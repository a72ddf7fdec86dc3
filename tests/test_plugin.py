"""What the plugin's hooks and the checks that ask Axolotl refuse; and a trainer without its plugin."""

import json

import pytest
import torch
from axolotl.core.trainers.base import AxolotlTrainer
from axolotl.integrations.base import BasePlugin, PluginManager
from axolotl.utils.dict import DictDefault
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import is_flash_attn_2_available

from eeve_axolotl import EEVEPlugin, checks, preflight
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import CORPUS_MANIFEST, HISTORY, RECORD, read_record, weights_sha256
from eeve_axolotl.run import StageRun
from eeve_axolotl.stages import STAGES
from eeve_axolotl.trainer import EEVETrainer
from eeve_axolotl.vocabulary import Vocabulary
from tests.conftest import extended, tiny_llama


def config(**keys):
    return {"base_model": "org/model", "eeve": {"stage": 3}, **keys}


def test_a_missing_block_ends_the_run_in_one_sentence():
    with pytest.raises(SystemExit, match="eeve_axolotl: the config has no `eeve:` block; add"):
        EEVEPlugin().register(DictDefault(config(eeve=None)))


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "corpus"},
        {"path": "json", "data_files": "corpus/00000.jsonl"},
        {"path": "json", "data_files": ["corpus/00000.jsonl"]},
    ],
    ids=["the directory", "its file", "a list of its files"],
)
def test_a_corpus_made_with_another_tokenizer_is_refused_before_anything_is_loaded(
    entry, tmp_path, monkeypatch, base_tokenizer, base_tokenizer_directory
):
    monkeypatch.chdir(tmp_path)
    ours = tmp_path / "ours"
    base_tokenizer.save_pretrained(ours)  # written again, it is still the same tokenizer
    other = tmp_path / "other"
    extended(base_tokenizer, ["가나"]).save_pretrained(other)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "00000.jsonl").write_text('{"text": "a"}\n')
    identity = tokenizer_identity(base_tokenizer_directory)
    manifest = {"tokenizer": {"directory": "ours", "identity": identity}, "longest_record": 100}
    (corpus / CORPUS_MANIFEST).write_text(json.dumps(manifest))
    cfg = DictDefault(config(datasets=[{**entry, "type": "completion"}], sequence_len=512))
    EEVEPlugin().register(DictDefault({**cfg, "tokenizer_config": str(ours)}))
    with pytest.raises(SystemExit, match="was made with the tokenizer ours, which is not the one in"):
        EEVEPlugin().register(DictDefault({**cfg, "tokenizer_config": str(other)}))


def test_modules_to_save_must_be_those_of_the_stage(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    cfg = config(base_model=str(tmp_path), adapter="qlora", load_in_4bit=True)
    assert checks.modules_to_save(cfg, STAGES[6]) == ["embed_tokens", "lm_head"]
    assert checks.modules_to_save(cfg, STAGES[7]) == []
    checks.check_config({**cfg, "lora_modules_to_save": ["lm_head", "embed_tokens"]}, STAGES[6])
    with pytest.raises(EEVEError, match="contradicts stage 6, which trains embed_tokens and lm_head"):
        checks.check_config({**cfg, "lora_modules_to_save": ["lm_head"]}, STAGES[6])
    with pytest.raises(EEVEError, match="contradicts stage 7, which trains neither embedding matrix"):
        checks.check_config({**cfg, "lora_modules_to_save": ["lm_head"]}, STAGES[7])


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed")
def test_flash_attention_that_is_absent_is_told_with_what_to_install_or_set():
    """The hub is offline here, as on a GPU without a network."""
    checks.check_attention(config(attn_implementation="sdpa"))
    with pytest.raises(
        EEVEError, match=r"flash-attn is not installed .*install `eeve-axolotl\[flash-attn\]`"
    ):
        checks.check_attention(config(attn_implementation="flash_attention_2"))
    with pytest.raises(SystemExit, match="set `attn_implementation: sdpa`, without sample packing"):
        EEVEPlugin().pre_model_load(config(attn_implementation="flash_attention_2"))


def test_a_process_without_weights_ends_the_run_before_it_could_prove_nothing():
    """Its fingerprint would be empty, and equal to any other empty one."""
    plugin = EEVEPlugin()
    plugin.register(DictDefault(config(eeve={"stage": 1})))
    with torch.device("meta"):
        model = tiny_llama(100)
    with pytest.raises(SystemExit, match="given no weights.*`fsdp_cpu_ram_efficient_loading`"):
        plugin.post_model_build(None, model)


class WithoutTable(torch.nn.Module):
    """A model that has the accessor, as every model of transformers, and nothing to give."""

    def get_input_embeddings(self):
        raise NotImplementedError


@pytest.mark.parametrize("model", [WithoutTable(), torch.nn.Linear(2, 2)])
def test_a_model_without_input_embeddings_ends_the_run_in_one_sentence(model):
    plugin = EEVEPlugin()
    plugin.register(DictDefault(config(eeve={"stage": 1})))
    with pytest.raises(
        SystemExit, match="eeve_axolotl: .* has no input embeddings .*: use a causal language model"
    ):
        plugin.post_model_build(None, model)


def test_the_trainer_without_its_plugin_does_not_train():
    trainer = EEVETrainer.__new__(EEVETrainer)  # nothing of a trainer is reached
    with pytest.raises(SystemExit, match="the plugin is not listed; add `plugins:"):
        trainer.train()


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("gpt2", ["wte", "lm_head"]), ("gptj", ["wte", "lm_head"]), ("gpt_neox", ["embed_in", None]),
        ("opt", ["embed_tokens", "lm_head"]), ("bloom", ["word_embeddings", "lm_head"]),
        ("phi", ["embed_tokens", "lm_head"]),
    ],
)  # fmt: skip
def test_the_embeddings_beside_adapters_are_called_as_the_model_calls_them(model_type, names, tmp_path):
    """PEFT passes over a name that no module has, and the base's own matrix would train and be lost in the merge."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    found = checks.modules_to_save(config(base_model=str(tmp_path)), STAGES[6])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert all(any(name.rpartition(".")[2] == each for name, _ in model.named_modules()) for each in found)
    assert [ours for ours, theirs in zip(found, names, strict=True) if theirs and ours != theirs] == []


@pytest.mark.parametrize("stage", [6, 7])
def test_adapters_are_kept_off_a_head_that_axolotl_does_not_know_by_name(stage, tmp_path):
    """It takes GPT-NeoX's for one more linear layer, and the head would train in stage 7."""
    from axolotl.loaders.adapter import load_adapter

    config = AutoConfig.for_model(
        "gpt_neox",
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    config.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(config)
    run = StageRun.from_config({"eeve": {"stage": stage}})
    run.vocabulary = Vocabulary(base_size=60, size=64, uninitialised_from=64)
    cfg = DictDefault(base_model=str(tmp_path), adapter="lora", lora_r=2, lora_alpha=2, lora_dropout=0.0)
    cfg.lora_target_linear = True
    run.set_implied_keys(cfg)
    run.keep_adapters_off(cfg, model)
    model, _ = load_adapter(model, cfg, "lora")
    run.freeze(model)
    trained = run.frozen.trained_parameters()
    assert any("lora_" in name for name in trained)
    assert not [name for name in trained if "lora_" in name and ("head" in name or "embed" in name)]


def test_an_evaluation_does_not_cut_the_gradient_of_layers_in_four_bits():
    """On a CPU with AVX512-BF16 bitsandbytes packs them in it; elsewhere it never does, so the switch is set here."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32)
    layer.weight = bitsandbytes.nn.Params4bit(torch.randn(64, 64), requires_grad=False, quant_type="nf4")
    layer.to("cpu").support_avx512bf16_for_cpu = True
    model = tiny_llama(100)
    model.model.layers[0].mlp.extra = layer
    run = StageRun.from_config(config())
    run.vocabulary = Vocabulary(base_size=90, size=100, uninitialised_from=100)
    run.freeze(model)
    hidden = torch.randn(2, 64)
    with torch.no_grad():
        evaluated = layer.eval()(hidden)
    trained = layer.train()(hidden.requires_grad_())
    assert torch.equal(evaluated, trained)
    trained.sum().backward()
    assert hidden.grad.abs().sum() > 0


class Brings(BasePlugin):
    """Another plugin, with a trainer of its own."""

    def get_trainer_cls(self, cfg):
        return AxolotlTrainer


@pytest.fixture
def another_plugin():
    plugins = PluginManager.get_instance().plugins
    plugins["other.Plugin"] = Brings()
    yield
    del plugins["other.Plugin"]


def test_a_plugin_before_ours_that_brings_a_trainer_is_refused(another_plugin):
    with pytest.raises(SystemExit, match="the plugin other.Plugin brings a trainer of its own"):
        EEVEPlugin().register(DictDefault(config()))


def test_a_trainer_that_is_not_ours_never_begins():
    plugin = EEVEPlugin()
    plugin.register(DictDefault(config()))
    with pytest.raises(SystemExit, match="the trainer that was built is AxolotlTrainer"):
        plugin.post_trainer_create(DictDefault(config()), object.__new__(AxolotlTrainer))


@pytest.mark.parametrize("moves", [False, True])
def test_a_stage_in_which_no_weight_changed_leaves_no_record_of_success(moves, tmp_path):
    """A rate that rounds to nothing, or a loss that does not reach what trains."""
    run = StageRun.from_config(config())
    run.vocabulary = Vocabulary(base_size=90, size=100, uninitialised_from=100)
    run.freeze(tiny_llama(100))
    run.begin()
    run.record["steps"] = 2
    optimizer = torch.optim.SGD(run.frozen.trained_parameters().values(), lr=0.1)
    if moves:
        next(iter(run.frozen.trained_parameters().values())).data[0, 0] += 1
        run.finish(tmp_path, optimizer)
        assert len(run.record["trained_and_unmoved"]) == 1  # the other matrix's new rows: named, not hidden
    else:
        with pytest.raises(EEVEError, match="stage 3 trained nothing: in 2 steps no weight changed"):
            run.finish(tmp_path, optimizer)


@pytest.mark.both_versions
@pytest.mark.parametrize("end", [None, KeyboardInterrupt, SystemExit, torch.OutOfMemoryError])
def test_a_run_that_fails_leaves_no_record_of_success(end, tmp_path):
    """Axolotl 0.21 asks for what comes after a training in a `finally`, after one that failed too."""
    plugin, cfg = EEVEPlugin(), DictDefault(output_dir=str(tmp_path))
    plugin.run = StageRun.from_config(config())
    plugin.run.vocabulary = Vocabulary(base_size=90, size=100, uninitialised_from=100)

    def train():
        try:
            if end:
                raise end
        finally:
            plugin.post_train_unload(cfg)

    if end:
        with pytest.raises(end):
            train()
        assert not list(tmp_path.iterdir())
    else:
        train()
        assert {path.name for path in tmp_path.iterdir()} == {RECORD, HISTORY}


def test_a_merged_model_has_the_record_and_history_of_its_adapter_and_no_other(tmp_path):
    """What Axolotl 0.21 asks for after a plain `axolotl merge-lora`, and a chain writes on every version."""
    adapter, merged = tmp_path / "stage6", tmp_path / "stage6" / "merged"
    merged.mkdir(parents=True)
    save_file({"lora_A": torch.zeros(2)}, adapter / "adapter_model.safetensors")
    save_file({"weight": torch.ones(2)}, merged / "model.safetensors")
    EEVEPlugin().post_lora_merge(DictDefault(), str(adapter), str(merged))
    found = {path.name for path in merged.iterdir()}
    assert found == {"model.safetensors"}  # the adapter is no finished stage's

    record = {"stage": "6", "base_vocab_size": 90, "vocab_size": 100, "weights": weights_sha256(adapter)}
    (adapter / RECORD).write_text(json.dumps(record))
    (adapter / HISTORY).write_text('{"steps": []}')
    EEVEPlugin().post_lora_merge(DictDefault(), str(adapter), str(merged))
    expected = {**record, "merged_from": weights_sha256(adapter), "weights": weights_sha256(merged)}
    assert read_record(merged) == expected
    assert (merged / HISTORY).read_text() == '{"steps": []}'
    # Trained again, not to its end.
    (merged / RECORD).unlink()
    save_file({"lora_A": torch.ones(2)}, adapter / "adapter_model.safetensors")
    EEVEPlugin().post_lora_merge(DictDefault(), str(adapter), str(merged))
    assert not (merged / RECORD).exists()


def test_a_check_that_breaks_off_is_told_and_those_after_it_are_made(monkeypatch, caplog):
    def breaks_off(recipe):
        raise TypeError("a list where a mapping was expected")

    monkeypatch.setattr(preflight, "CHECKS", [("the weather", breaks_off), *preflight.CHECKS])
    with pytest.raises(SystemExit, match="trainable_token_indices` cannot be used together"):
        EEVEPlugin().register(DictDefault(config(peft={"trainable_token_indices": [1]})))
    assert "not looked at: the weather (TypeError: a list where a mapping was expected)" in caplog.text
