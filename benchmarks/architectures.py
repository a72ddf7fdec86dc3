"""Tiny models of many architectures through all seven stages: of the saved weights, loaded again, what the plan says moved.

    python benchmarks/architectures.py --json [--only llama] [--results DIRECTORY]

Every stage begins at a random model of two layers, whose embeddings grow by a few rows. Stages 6 and 7 go through Axolotl's
own adapter loader and PEFT's merge. A model with tied embeddings goes through untied as well. Those of COMMAND go through
`axolotl train` and `axolotl merge-lora` too. What is compared is what transformers alone loads from disk, row by row. A
finished run is a line in DIRECTORY, and is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import yaml

from eeve_axolotl.args import EEVESettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.run import StageRun
from eeve_axolotl.stages import STAGES, Layers, Rows
from eeve_axolotl.vocabulary import Vocabulary

BASE, NEW, STEPS, LENGTH = 259, 5, 2, 24
RATE = 1e-2

# What a tiny model is, in every architecture's own words; a config takes those that it has.
SMALL = {
    "vocab_size": BASE, "hidden_size": 32, "d_model": 32, "n_embd": 32, "word_embed_proj_dim": 32, "embed_dim": 32,
    "intermediate_size": 48, "ffn_dim": 48, "n_inner": 48, "ffn_hidden_size": 48, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24, "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "n_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "n_heads": 4, "attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "rotary_dim": 4, "max_position_embeddings": 64, "n_positions": 64, "max_seq_len": 64, "n_ctx": 64,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "n_group": 2, "topk_group": 1, "n_shared_experts": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    "sliding_window": 16, "layer_types": None, "state_size": 8, "use_cache": False, "query_pre_attn_scalar": 8,
}  # fmt: skip

# And what some need besides.
OWN: dict[str, dict] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 16},
    "mpt": {"expansion_ratio": 2},
    "persimmon": {"num_key_value_heads": None},
    "opt": {"pad_token_id": 2},
    "deepseek_v3": {"first_k_dense_replace": 1, "head_dim": 4},
    "deepseek_v2": {"first_k_dense_replace": 1, "topk_method": "greedy", "n_group": None, "topk_group": None},
    "glm4_moe": {"first_k_dense_replace": 1},
    "dots1": {"first_k_dense_replace": 1},
    "jamba": {"mamba_d_state": 8, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
              "expert_layer_offset": 1, "use_mamba_kernels": False},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 2},
    "mixtral": {"sliding_window": None},
    "gpt_oss": {"head_dim": 8},
}  # fmt: skip

ARCHITECTURES = """
llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma gemma2 gemma3_text phi phi3 gpt2 gpt_neo gpt_neox gptj opt
bloom falcon mpt codegen gpt_bigcode starcoder2 stablelm olmo olmo2 olmo3 olmoe cohere cohere2 granite granitemoe
persimmon glm glm4 nemotron mamba mamba2 jamba deepseek_v2 deepseek_v3 smollm3 exaone4 ernie4_5 hunyuan_v1_dense helium
arcee seed_oss apertus biogpt xglm gpt_oss lfm2 dots1 diffllama phimoe glm4_moe flex_olmo ministral
""".split()
COMMAND = "llama mistral qwen2 qwen3 gemma2 phi phi3 gpt_neox gpt2 olmo2 stablelm granite".split()


def build(architecture: str, tied: bool | None = None):
    """A tiny random model, its input and output embeddings as its config has them unless `tied` says otherwise."""
    from transformers import AutoConfig, AutoModelForCausalLM

    known = AutoConfig.for_model(architecture).to_dict().keys()
    config = {key: value for key, value in SMALL.items() if key in known}
    config |= OWN.get(architecture, {}) | ({} if tied is None else {"tie_word_embeddings": tied})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **config)).float()


def is_tied(architecture: str) -> bool:
    """Whether its embeddings are one matrix by default."""
    try:
        model = build(architecture)
        return model.get_input_embeddings().weight is model.get_output_embeddings().weight
    except Exception:  # told by its runs
        return False


def batches(size: int):
    """Token ids that name every row."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        ids = torch.cat(
            [torch.arange(size), torch.randint(3, size, (LENGTH - size % LENGTH,), generator=generator)]
        )
        yield ids[torch.randperm(len(ids), generator=generator)].view(-1, LENGTH)


def train(model, frozen) -> None:
    """A few steps of AdamW with decay and a high rate, so that what can move does."""
    optimizer = frozen.protect(
        torch.optim.AdamW(frozen.trained_parameters().values(), lr=RATE, weight_decay=0.1)
    )
    model.train()
    for ids in batches(BASE + NEW):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def below_the_command(architecture: str, stage: int, directory: Path, untie: bool = False) -> str:
    """A stage through the run's own hooks and Axolotl's adapters, saved, and compared."""
    from axolotl.loaders.adapter import load_adapter
    from axolotl.utils.dict import DictDefault
    from transformers.pytorch_utils import Conv1D

    model = build(architecture)
    settings = EEVESettings(stage=stage, untie=untie)
    run = StageRun(settings, vocabulary=Vocabulary(BASE, BASE + NEW, BASE + NEW))
    run.note_checkpoint(model)
    model.resize_token_embeddings(BASE + NEW, mean_resizing=False)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    targets: set[str] = set()
    if run.stage.internal_layers is Layers.QLORA:
        model.config.save_pretrained(directory / "base")
        cfg = DictDefault(base_model=str(directory / "base"), adapter="lora", lora_r=4, lora_alpha=8, lora_dropout=0.0,
                          lora_target_linear=True)  # fmt: skip
        # GPT-2's linear layers are Conv1D until they are loaded in 4 bits.
        convolutions = {
            name.rpartition(".")[2] for name, each in model.named_modules() if isinstance(each, Conv1D)
        }
        cfg.lora_target_modules = sorted(convolutions)
        run.set_implied_keys(cfg)
        run.keep_adapters_off(cfg, model)
        model, _ = load_adapter(model, cfg, "lora")
        targets = {
            name.removeprefix("base_model.model.")
            for name, each in model.named_modules()
            if hasattr(each, "lora_A")
        }
    run.freeze(model)
    run.begin()
    train(model, run.frozen)
    run.record["steps"] = STEPS
    run.finish(directory, None)
    run.frozen.remove()
    if targets:
        model = model.merge_and_unload()
    model.save_pretrained(directory / "saved")
    return compare(before, directory / "saved", stage, targets)


def untied(architecture: str, stage: int, directory: Path) -> str:
    """The same with `eeve.untie: true`."""
    return below_the_command(architecture, stage, directory, untie=True)


def compare(before: dict, saved: Path, stage: int, targets: set[str] | None) -> str:
    """Of each row and each parameter that transformers loads from `saved`: whether it moved where the plan says so."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True, dtype=torch.float32)
    missing = {
        key: [*info[key]] for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]
    }
    if missing:
        return f"wrong: {missing}"
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    plan = STAGES[stage]
    wanted = {id(table.weight): plan.input_embeddings}
    if table.weight is not head.weight:
        wanted[id(head.weight)] = plan.output_embeddings
    elif Rows.ALL in (plan.input_embeddings, plan.output_embeddings):
        wanted[id(table.weight)] = Rows.ALL
    if getattr(head, "bias", None) is not None:
        wanted[id(head.bias)] = plan.output_embeddings
    others = []
    for name, after in model.named_parameters():
        moved = (after != before[name]).reshape(len(after) if after.dim() else 1, -1).any(1)
        which = wanted.get(id(after))
        if which is None:
            if moved.any():
                others.append(name)
            continue
        # A row of zeros (of a padding token) has neither a gradient nor decay.
        can = (
            before[name].reshape(len(after), -1).any(1)
            if "bias" not in name
            else torch.ones(len(after), dtype=bool)
        )
        start = {Rows.NONE: len(after), Rows.NEW: BASE, Rows.ALL: 0}[which]
        if moved[:start].any():
            return f"wrong: {int(moved[:start].sum())} frozen rows of {name} moved"
        if not moved[start:][can[start:]].all():
            return f"wrong: {int((~moved[start:] & can[start:]).sum())} rows of {name} should have moved"
    if plan.internal_layers is Layers.FROZEN:
        return f"wrong: {others[:3]} moved" if others else "ok"
    if not others:
        return "wrong: no internal layer moved"
    if targets is not None:
        strangers = [name for name in others if not any(name.startswith(f"{each}.") for each in targets)]
        if strangers:
            return f"wrong: {strangers[:3]} moved, which no adapter is on"
    return "ok"


def by_the_command(architecture: str, stage: int, directory: Path) -> str:
    """The same through `axolotl train` and `axolotl merge-lora`."""
    from transformers import AutoModelForCausalLM

    from tests.conftest import extended
    from tests.e2e.helpers import axolotl, write_recipe
    from tests.e2e.test_check_and_train import byte_level

    base = byte_level()
    tokenizer = extended(base, ["hello", "there"])
    tokenizer.pad_token = "<pad>"
    size = len(tokenizer)
    model = build(architecture)
    model.resize_token_embeddings(size, mean_resizing=False)
    model.config.eeve_axolotl = {"base_vocab_size": BASE, "vocab_size": size}
    model.save_pretrained(directory / "base")
    tokenizer.save_pretrained(directory / "base")
    tokenizer.save_pretrained(directory / "tokenizer")
    # A text of every token, so that every row can move.
    text = "hello there " + "".join(map(chr, range(32, 127))) + "\u00e9\u4e2d\U0001f600 "
    (directory / "text.jsonl").write_text((json.dumps({"text": text}) + "\n") * 64, encoding="utf-8")
    keys = {
        "sequence_len": 64,
        "micro_batch_size": 8,
        "attn_implementation": "eager",
        "sample_packing": False,
    }
    recipe = write_recipe(directory, stage, "./base", **keys)
    done = axolotl(directory, "train", recipe, "--launcher", "python")
    refusal = [line for line in done.stdout.splitlines() if line.startswith("eeve_axolotl: ")]
    if done.returncode:
        return (
            f"refused: {refusal[-1]}" if refusal else f"wrong: {done.stdout.strip().splitlines()[-1][:300]}"
        )
    saved = directory / f"stage{stage}"
    if stage >= 6:
        done = axolotl(directory, "merge-lora", recipe)
        if done.returncode:
            return f"wrong: the merge ended with {done.stdout.strip().splitlines()[-1][:300]}"
        saved /= "merged"
    before = AutoModelForCausalLM.from_pretrained(directory / "base", dtype=torch.float32).state_dict()
    return compare(before, saved, stage, None)


def outcome(way, architecture: str, stage: int) -> str:
    """One run in a directory of its own: ok, refused or wrong, with a sentence."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            return way(architecture, stage, Path(directory))
        except EEVEError as error:
            return f"refused: {error}"
        except SystemExit as end:
            return f"refused: {end}"
        except Exception as error:
            return f"wrong: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def main() -> None:
    """Do what is not done, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the last line is JSON")
    parser.add_argument("--only", action="append", help="an architecture; may be given again")
    parser.add_argument("--stage", type=int, action="append", help="a stage; may be given again")
    parser.add_argument("--without-command", action="store_true", help="nothing through the axolotl command")
    parser.add_argument("--results", type=Path, default=Path("outputs/architectures"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / "runs.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    done = {(each["architecture"], each["stage"]): each["outcome"] for each in map(json.loads, lines)}
    done = {
        run: found for run, found in done.items() if not found.startswith("wrong")
    }  # those are done again
    tied = {name for name in options.only or ARCHITECTURES if is_tied(name)}
    runs = [(below_the_command, name, name) for name in options.only or ARCHITECTURES]
    runs += [(untied, name, f"{name} (untied)") for name in options.only or ARCHITECTURES if name in tied]
    if not options.without_command:
        runs += [
            (by_the_command, name, f"{name} (axolotl)")
            for name in COMMAND
            if name in (options.only or COMMAND)
        ]
    for way, architecture, name in runs:
        for stage in options.stage or STAGES:
            if (name, stage) not in done:
                done[name, stage] = found = outcome(way, architecture, stage)
                with file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps({"architecture": name, "stage": stage, "outcome": found}) + "\n")
                print(f"{name} stage {stage}: {found}", flush=True)
    table: dict[str, dict[str, str]] = {}
    for (name, stage), found in done.items():
        table.setdefault(name, {})[str(stage)] = found
    print(json.dumps(table) if options.json else yaml.safe_dump(table))


if __name__ == "__main__":
    main()
