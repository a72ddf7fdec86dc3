"""The README's lines pasted into the shapes of Axolotl YAMLs: what `axolotl eeve check` says, and how `axolotl train` ends.

Where train refuses, it does so before anything is loaded, so its own reading of the config is called here in this process;
a few cases are trained with the command itself.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass

import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError

from eeve_axolotl.cli import eeve
from tests.conftest import extended, tiny_llama
from tests.e2e.helpers import QLORA, RECIPE, axolotl

pytestmark = pytest.mark.e2e

BASE = 259
OURS = {"tokenizer_config": "./tokenizer", "plugins": ["eeve_axolotl.EEVEPlugin"], "eeve": {"stage": 3}}
COMMON = {key: each for key, each in RECIPE.items() if key != "plugins"}
LORA = {key: each for key, each in QLORA.items() if key != "load_in_4bit"} | {"adapter": "lora"}
FSDP = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
        "state_dict_type": "FULL_STATE_DICT", "reshard_after_forward": True}  # fmt: skip
CHAT = {"chat_template": "chatml", "datasets": [{"path": "./chat.jsonl", "type": "chat_template"}]}
STREAM = {"datasets": None, "pretraining_dataset": [{"path": "./text.jsonl", "type": "pretrain"}]}
FP8 = {"eeve": {"stage": 3, "frozen_precision": "fp8"}}
WHOLE = {"input_embeddings": "new", "output_embeddings": "all", "internal_layers": "full"}
RATES = {"stage": 3, "input_learning_rate": "3e-3", "output_learning_rate": 3e-4}
GROUPS = [{"name": "attention", "modules": ["self_attn"], "lr": 1e-5}]
DPO = {"rl": "dpo", "datasets": [{"path": "./text.jsonl", "type": "chatml.intel"}]}


@dataclass(frozen=True)
class Case:
    """A YAML of Axolotl's with our lines, and what stops it (None: nothing does)."""

    name: str
    keys: dict
    says: str | None = None
    ends: str | None = None  # the words of train, where they are Axolotl's own
    more: str | None = None  # something else that is wrong, which check says too
    unknown: str | None = None
    text: str = ""  # after the mapping, as a person pastes it
    trained: bool = False  # with the command itself


SPECTRUM, DIFFUSION = (
    "axolotl.integrations.spectrum.SpectrumPlugin",
    "axolotl.integrations.diffusion.DiffusionPlugin",
)
# From 0.21 on Axolotl stops at a plugin that it cannot import, before it asks any other; 0.19 goes on, and ours stops it.
NO_PLUGIN = r"the plugin not_here\.Plugin cannot be imported|^No module named 'not_here'$"
LIGER = "axolotl.integrations.liger.LigerPlugin"


def plugins(*names: str) -> dict:
    return {"plugins": [*names, "eeve_axolotl.EEVEPlugin"]}


def tie(key: str, value: bool, base: str = "./base") -> dict:
    return {"base_model": base, key: {"tie_word_embeddings": value}}


CASES = [
    Case("full", {}, trained=True),
    Case("lora", LORA, "stage 3 keeps the internal layers frozen, but `adapter: lora`"),
    Case("qlora", QLORA, "stage 3 keeps the internal layers frozen, but `adapter: qlora`"),
    Case("qlora in stage 6", {**QLORA, "eeve": {"stage": 6}}),
    Case("lora in stage 7", {**LORA, "eeve": {"stage": 7}}, "add `adapter: qlora` and `load_in_4bit: true`"),
    Case("fsdp1", {"fsdp": ["full_shard"], "fsdp_config": FSDP}, "FSDP1 flattens parameters"),
    Case("fsdp2", {"fsdp_version": 2, "fsdp_config": FSDP}),
    Case(
        "fsdp2, memory spared", {"fsdp_version": 2, "fsdp_config": {**FSDP, "cpu_ram_efficient_loading": True}},
        "leaves every process but the first without weights",
    ),
    Case("deepspeed", {"deepspeed": "./zero3.json"}),
    Case("deepspeed in pieces", {"deepspeed": "./zero3_pieces.json"}, "saves ZeRO-3 weights in pieces"),
    Case("deepspeed, no file", {"deepspeed": "deepspeed_configs/zero2.json"}, "deepspeed_configs/zero2.json does not exist"),
    Case("8 bits", FP8, unknown="no GPU is seen here, so it is not known whether the one that will train has FP8"),
    Case("8 bits, several stages", {"eeve": {"stages": [1, 4, 5], "frozen_precision": "fp8"}}, unknown="no GPU is seen"),
    Case("8 bits, sharded", {**FP8, "fsdp_version": 2, "fsdp_config": FSDP}, "fp8` keeps .*this run is sharded"),
    Case("8 bits, ZeRO", {**FP8, "deepspeed": "./zero3.json"}, "fp8` keeps .*this run is sharded"),
    Case("8 bits, tensor parallel", {**FP8, "tensor_parallel_size": 2}, "`tensor_parallel_size: 2` cuts matrices"),
    Case("8 bits in stage 6", {**QLORA, "eeve": {"stage": 6, "frozen_precision": "fp8"}},
         r"stage 6 trains the internal layers \(qlora\); remove it"),
    Case("8 bits, layers train", {"eeve": {**WHOLE, "frozen_precision": "fp8"}},
         r"stage custom trains the internal layers \(full\)"),
    Case("8 bits, quantised", {**FP8, "load_in_8bit": True}, "stage 3 trains without an adapter, which a quantised"),
    Case("8 bits, a quantised base", {**FP8, "base_model": "./quantised"}, r"the base model is quantised already \(fp8\)"),
    Case("8 bits, Axolotl's", {**FP8, "fp8": True, "torch_compile": True}, "`fp8` cannot be used together with `eeve.frozen",
         more="`torch_compile` cannot be used together with `eeve.frozen_precision: fp8`"),
    Case("8 bits, fp16", {**FP8, "fp16": True}, "`fp16` cannot be used together with `eeve.frozen_precision: fp8`"),
    Case("other bits", {"eeve": {"stage": 3, "frozen_precision": "fp4"}}, "frozen_precision.*fp8"),
    Case("dpo", DPO, "`rl` cannot be used together with `eeve:`"),
    *[Case(rl, {"rl": rl}, "`rl` cannot be used together with `eeve:`") for rl in ("kto", "orpo", "ipo", "simpo", "grpo")],
    Case("reward", {"reward_model": True}, "`reward_model` cannot be used together"),
    Case("process reward", {"process_reward_model": True}, "`process_reward_model` cannot be used together"),
    Case("chat", CHAT),
    Case("streaming", STREAM),
    Case("streaming, several stages", {**STREAM, "eeve": {"stages": [1, 2]}}, "a stage reads a stream from its beginning"),
    Case("other plugins", plugins(LIGER)),
    Case("spectrum", plugins(SPECTRUM), "SpectrumPlugin unfreezes layers"),
    Case("diffusion", plugins(DIFFUSION), "DiffusionPlugin brings a trainer of its own"),
    Case("no such plugin", plugins("not_here.Plugin"), "the plugin not_here.Plugin cannot be imported",
         ends=NO_PLUGIN),
    Case("plugins twice", {}, "`plugins` stands in lines", text=f"plugins:\n  - {LIGER}\n  - eeve_axolotl.EEVEPlugin\n"),
    Case("a nested key twice", {}, "`lr_scheduler_kwargs.min_lr` stands in lines",
         text="lr_scheduler_kwargs:\n  min_lr: 1\n  min_lr: 2\n"),
    Case("unfrozen parameters", {"unfrozen_parameters": ["lm_head"]}, "`unfrozen_parameters` cannot be used"),
    *[
        Case(f"tied, stage {stage}", {"base_model": "./tied", "eeve": {"stage": stage}}, "ties them into one matrix")
        for stage in (1, 2, 5)
    ],
    Case("tied, stage 3", {"base_model": "./tied"}),
    Case("tied, several", {"base_model": "./tied", "eeve": {"stages": [3, 5]}}, "ties them into one matrix"),
    Case("tied, untied", {"base_model": "./tied", "eeve": {"stage": 1, "untie": True}}),
    *[
        Case(key, tie(key, True), f"`{key}.tie_word_embeddings: True` would make the base model lose")
        for key in ("overrides_of_model_config", "overrides_of_model_kwargs", "model_config", "model_kwargs")
    ],
    Case("rates", {"eeve": RATES}),
    Case("rates, tied", {"base_model": "./tied", "eeve": RATES}, "stage 3 gives .* rates 0.0003 and 0.003, but this model"),
    Case("rates alike, tied", {"base_model": "./tied", "eeve": {**RATES, "output_learning_rate": "3e-3"}}),
    Case("rates, untied", {"base_model": "./tied", "eeve": {**RATES, "untie": True}}),
    Case("rates, not trained", {"eeve": {"stage": 2, "input_learning_rate": 1}}, "stage 2 trains none of their rows"),
    *[
        Case(f"rates, {key}", {"eeve": RATES, key: value}, f"`{key}` and `input_learning_rate` and `output_learning_rate`")
        for key, value in (("embedding_lr", 1.0), ("embedding_lr_scale", 2.0), ("lr_groups", GROUPS))
    ],
    Case("rates, loraplus", {**QLORA, "eeve": {**RATES, "stage": 6}, "loraplus_lr_ratio": 16.0},
         "`loraplus_lr_ratio` and `input_learning_rate` and"),
    Case("no rates, embedding_lr", {"embedding_lr": 1.0}),
    Case("rates, one cycle", {"eeve": RATES, "lr_scheduler": "one_cycle"}, "`lr_scheduler: one_cycle` takes"),
    Case("rates, rex", {"eeve": RATES, "lr_scheduler": "rex"}),
    Case("rates, ZeRO", {"eeve": RATES, "deepspeed": "./zero3.json"}),
    Case("rates, DeepSpeed's own", {"eeve": RATES, "deepspeed": "./zero3_optimizer.json"}, "need Axolotl's optimizer and"),
    Case("no rates, DeepSpeed's own", {"deepspeed": "./zero3_optimizer.json"}),
    Case("tie overridden", tie("overrides_of_model_config", False, "./tied"), "get a head of random numbers; .*`eeve.untie"),
    Case("tie repeated", tie("overrides_of_model_config", False)),
    Case("deprecated", {"max_packed_sequence_len": 64, "rope_scaling": {"type": "linear"}},
         "`max_packed_sequence_len` is no longer supported", more="`rope_scaling` is no longer supported"),
    Case("misspelt", {"learning_ratee": 1}, "`learning_ratee` is no key of Axolotl's.*write `learning_rate`"),
    Case("misspelt in the block", {"eeve": {"stage": 3, "head_los": "plain"}}, r"did you mean `head_loss`\?"),
    Case("misspelt deeper", {"eeve": {"stages": [{"stage": 1, "max_step": 2}]}}, r"did you mean `max_steps`\?"),
    Case("misspelt beside", {"eeve": {"stage": 3, "head_los": "plain"}, "learning_ratee": 1}, "head_los",
         more="`learning_ratee`"),
    Case("not extended", {"tokenizer_config": "./base"}, "there are no new rows to train"),
    Case("tokens", {"tokens": ["<a>", "<b>", "<c>"]}, trained=True),
    Case("tokens of a stage before", {"base_model": "./marked", "tokens": ["<a>", "<b>", "<c>"]}),
    Case("special tokens of a stage before",
         {"base_model": "./marked", "special_tokens": {"pad_token": "<a>", "additional_special_tokens": ["<b>", "<c>"]}}),
    Case("tokens left out", {"base_model": "./marked"}, "but the model was trained with"),
    Case("other tokens", {"base_model": "./marked", "tokens": ["<a>"]}, "`tokens` of this config add 1 to the"),
    Case("other special tokens", {"base_model": "./marked", "special_tokens": {"pad_token": "<a>"}},
         "`special_tokens` of this config add 1 to the"),
    Case("tokens beside adapters", {**QLORA, "eeve": {"stage": 7}, "tokens": ["<a>"]},
         "`tokens` would change the tokenizer, which Axolotl allows beside adapters only"),
    Case("a token renamed", {"added_tokens_overrides": {2: "<end>"}, "base_model": "./base"},
         "`added_tokens_overrides` of this config renames the tokens of id 2"),
    Case("no such token to rename", {"added_tokens_overrides": {200: "<end>"}}, "with `added_tokens_overrides`"),
    Case("several things", {"rl": "dpo", "adapter": "lora", "fix_untrained_tokens": True},
         "`fix_untrained_tokens` cannot be used", more="`rl` cannot be used"),
    Case("a hub base without a hub", {"base_model": "org/base"}, unknown="org/base"),
    Case("the same in stage 6", {**QLORA, "base_model": "org/base", "eeve": {"stage": 6}}, unknown="org/base"),
    Case("Axolotl's own", {"learning_rate": "fast"}, "learning_rate"),
]  # fmt: skip


def byte_level():
    """A base tokenizer of three special tokens and the 256 bytes: its files are read in no time."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    pieces = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    assert len(pieces) == BASE
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in special.values()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A directory with base models, an extended tokenizer, texts and DeepSpeed's files."""
    directory = tmp_path_factory.mktemp("check_and_train")
    base = byte_level()
    tokenizer = extended(base, ["hello", "there"])
    tokenizer.pad_token = "<pad>"
    tokenizer.save_pretrained(directory / "tokenizer")
    for name in ("base", "tied", "marked"):
        base.save_pretrained(directory / name)
    tiny_llama(BASE, hidden_size=8).save_pretrained(directory / "base")
    tiny_llama(BASE, hidden_size=8, tie_word_embeddings=True).save_pretrained(directory / "tied")
    marked = tiny_llama(len(tokenizer) + 3, hidden_size=8)
    marked.config.eeve_axolotl = {"base_vocab_size": BASE, "vocab_size": len(tokenizer) + 3}
    marked.save_pretrained(directory / "marked")
    quantised = tiny_llama(BASE, hidden_size=8)
    quantised.config.quantization_config = {"quant_method": "fp8"}
    quantised.config.save_pretrained(directory / "quantised")
    base.save_pretrained(directory / "quantised")
    (directory / "text.jsonl").write_text('{"text": "hello there, hello"}\n' * 64, encoding="utf-8")
    chat = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    (directory / "chat.jsonl").write_text(chat * 8, encoding="utf-8")
    zero = '{"zero_optimization": {"stage": 3, "gather_16bit_weights_on_model_save": %s}}'
    (directory / "zero3.json").write_text(zero % "true")
    (directory / "zero3_pieces.json").write_text(zero % "false")
    optimizer = ', "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}'
    (directory / "zero3_optimizer.json").write_text(zero[:-1] % "true" + optimizer)
    return directory


def write(case: Case, directory) -> str:
    keys = {"base_model": "./base", "output_dir": "./out", **COMMON, **OURS, **case.keys}
    content = yaml.safe_dump({key: each for key, each in keys.items() if each is not None}, sort_keys=False)
    (directory / "recipe.yml").write_text(content + case.text, encoding="utf-8")
    return "recipe.yml"


def check(path: str) -> tuple[int, str]:
    result = CliRunner().invoke(eeve, ["check", path])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def read_as_train_does(path: str, monkeypatch) -> str | None:
    """What stops `axolotl train` where it reads the config, before anything is loaded; None if nothing does."""
    from axolotl.cli import config
    from axolotl.integrations.base import PluginManager

    for later in ("prepare_debug_log", "prepare_optim_env", "normalize_config"):  # after all that can refuse
        monkeypatch.setattr(config, later, lambda cfg: None)
    monkeypatch.setattr(config, "gpu_capabilities", lambda: (
        {"bf16": True, "tf32": True, "fp8": True, "n_gpu": 1, "compute_capability": "sm_90"}, {"torch_version": "2.13.0"}
    ))  # fmt: skip
    before = dict(os.environ)
    try:
        config.load_cfg(path)
    except (SystemExit, ValidationError, ModuleNotFoundError) as end:
        return str(end)
    except Exception as error:
        return f"Traceback: {error}"
    finally:
        PluginManager.get_instance().plugins.clear()
        os.environ.clear()
        os.environ.update(before)
    return None


@pytest.mark.both_versions
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check_says_what_train_does(case, places, monkeypatch):
    monkeypatch.chdir(places)
    path = write(case, places)
    code, said = check(path)
    end = read_as_train_does(path, monkeypatch)
    assert not (end or "").startswith("Traceback"), end
    if case.says is None:
        assert code == 0, said
        assert "nothing would stop it" in said
        if case.unknown:
            assert "Unknown: " in said and case.unknown in said
        else:
            assert "Unknown" not in said, said
            assert end is None
    else:
        assert code == 1, said
        assert re.search(case.says, said), said
        assert re.search(case.ends or case.says, end), end
    if case.more:
        assert case.more in said and "\n" not in end


@pytest.mark.parametrize("case", [each for each in CASES if each.trained], ids=lambda case: case.name)
def test_what_check_lets_pass_trains(case, places):
    done = axolotl(places, "train", write(case, places), "--launcher", "python")
    assert done.returncode == 0, done.stdout[-3000:]
    shutil.rmtree(places / "out")
