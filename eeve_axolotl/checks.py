"""What in an Axolotl config contradicts the stage: told in one sentence, before anything is loaded.

Works on the raw mapping that Axolotl hands to plugins before its own validation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from eeve_axolotl.base_model import embedding_names
from eeve_axolotl.errors import EEVEError, UnknownError
from eeve_axolotl.paths import same_place
from eeve_axolotl.stages import Layers, Rows, Stage

TRAINER = "eeve_axolotl.trainer.EEVETrainer"

LIGER_LOSS = "liger_fused_linear_cross_entropy"
CUT_LOSS = "cut_cross_entropy"

# Keys with which a config gives the model another loss, or compiles the model, whose logits are then made.
_OTHER_LOSSES = (
    CUT_LOSS,
    LIGER_LOSS,
    "liger_cross_entropy",
    "chunked_cross_entropy",
    "flash_attn_cross_entropy",
    "unsloth_cross_entropy_loss",
    "use_eaft",
    "kd_trainer",
    "label_smoothing_factor",
    "torch_compile",
)

# Keys with which a config would itself decide what trains, or change rows behind the stage's back.
_OTHERS_WHO_DECIDE = {
    "unfrozen_parameters": "the stage decides which parameters train",
    "peft_trainable_token_indices": "the stage decides which rows train",
    "fix_untrained_tokens": "it overwrites rows that the stage keeps frozen",
    "shrink_embeddings": "it would cut off rows",
    "relora": "the stage merges its adapter once, at its end",
    "lisa_n_layers": "the stage decides which layers train",
    "rl": "its trainers are built without the one that keeps rows frozen; train the stages first",
    "reward_model": "its trainer is built without the one that keeps rows frozen; train the stages first",
    "process_reward_model": "its trainer is built without the one that keeps rows frozen; train the stages first",
    "balance_labels": "the stage decides in which order text is read",
}


def check_config(cfg: Mapping[str, Any], stage: Stage) -> None:
    """Raise EEVEError for the first key of `cfg` that contradicts `stage`."""
    for problem in contradictions(cfg, stage):
        raise EEVEError(problem)


def contradictions(cfg: Mapping[str, Any], stage: Stage) -> Iterator[str]:
    """The keys of `cfg` that contradict `stage`, a sentence each."""
    for key, why in _OTHERS_WHO_DECIDE.items():
        if cfg.get(key):
            yield f"`{key}` cannot be used together with `eeve:` ({why}); remove it"
    if (cfg.get("peft") or {}).get("trainable_token_indices"):
        yield (
            "`peft.trainable_token_indices` cannot be used together with `eeve:` (the stage decides which "
            "rows train); remove it"
        )
    trainer = cfg.get("trainer_cls")
    if trainer and trainer != TRAINER:
        yield f"`trainer_cls: {trainer}` would replace the trainer that keeps rows frozen; remove it"
    for check in (_check_optimizer, _check_adapter, _check_modules_to_save, _check_merge, _check_loss):
        try:
            check(cfg, stage)
        except UnknownError:
            raise
        except EEVEError as error:
            yield str(error)


def other_loss(cfg: Mapping[str, Any]) -> str | None:
    """The key with which `cfg` decides the loss itself, instead of `eeve.head_loss`; None if there is none."""
    for key in _OTHER_LOSSES:
        if cfg.get(key):
            return key
    # Its plugin switches it on where the key is left out.
    plugins = [str(each) for each in cfg.get("plugins") or []]
    if cfg.get(CUT_LOSS) is None and any(each.endswith("CutCrossEntropyPlugin") for each in plugins):
        return CUT_LOSS
    return None


def _check_loss(cfg: Mapping[str, Any], stage: Stage) -> None:
    # Liger 0.8.1 makes the gradient of the head only where its input needs one, and no layer below trains here.
    if cfg.get(LIGER_LOSS) and not stage.backward_through_layers:
        raise EEVEError(
            f"`{LIGER_LOSS}` gives the output embeddings no gradient in stage {stage.name}, where nothing below them "
            "trains, so nothing would be learned; remove it"
        )


def check_head(cfg: Mapping[str, Any], model) -> None:
    """Raise EEVEError where the loss that `cfg` asks for would leave out the head's bias.

    Liger's fused loss reads the head's matrix alone (Phi-2's head has a bias).
    """
    head = model.get_output_embeddings()
    if cfg.get(LIGER_LOSS) and getattr(head, "bias", None) is not None:
        raise EEVEError(
            f"`{LIGER_LOSS}` would leave out the bias of {type(model).__name__}'s head; remove it"
        )


# Keys with which a config itself changes how the layers compute, or builds their code anew.
_OTHER_PRECISIONS = {
    "fp8": "it quantises every linear module at each step",
    "fp16": "it has no room for what these products give; `bf16: true` has",
    "qat": "it quantises layers while they train",
    "model_quantization_config": "it loads layers that are quantised already",
    "gptq": "it loads layers that are quantised already",
    "torch_compile": "it is not proven with it",
}


def precision_problems(cfg: Mapping[str, Any], stages: Iterable[Stage]) -> Iterator[str]:
    """What keeps the frozen layers of `stages` from being held in 8 bits (`eeve.frozen_precision: fp8`), a sentence each."""
    for stage in stages:
        if stage.internal_layers is not Layers.FROZEN:
            yield (
                f"`eeve.frozen_precision: fp8` is for layers that are frozen, and stage {stage.name} trains the internal "
                f"layers ({stage.internal_layers.value}); remove it"
            )
    for key, why in _OTHER_PRECISIONS.items():
        if cfg.get(key):
            yield f"`{key}` cannot be used together with `eeve.frozen_precision: fp8` ({why}); remove one of the two"


# Keys with which a config itself gives parameters rates of their own.
_OTHER_RATES = ("embedding_lr", "embedding_lr_scale", "lr_groups", "loraplus_lr_ratio")

# Schedules that give all parameters one peak, or hold their rates between limits that are the same for all.
_ONE_RATE = {
    "one_cycle": "takes every parameter to one peak",
    "greedy": "holds every rate between the same limits",
}


def rate_problems(cfg: Mapping[str, Any], keys: Collection[str]) -> Iterator[str]:
    """What keeps an embedding matrix from having a learning rate of its own, a sentence each.

    Args:
        keys: those of `input_learning_rate` and `output_learning_rate` that the `eeve:` block uses; with none there
            is no problem.
    """
    if not keys:
        return
    ours = " and ".join(f"`{key}`" for key in keys)
    for key in _OTHER_RATES:
        if cfg.get(key):
            yield f"`{key}` and {ours} of `eeve:` both give parameters learning rates of their own; remove one of the two"
    scheduler = str(cfg.get("lr_scheduler") or "")
    if scheduler in _ONE_RATE:
        yield (
            f"`lr_scheduler: {scheduler}` {_ONE_RATE[scheduler]}, so {ours} would have no effect; set cosine, linear, "
            "constant_with_warmup or rex, or remove the rates"
        )


def _check_optimizer(cfg: Mapping[str, Any], stage: Stage) -> None:
    """Those that step inside the backward pass leave the trainer nothing to hold to the stage, or to save."""
    optimizer = str(cfg.get("optimizer") or "")
    if optimizer in ("lomo", "adalomo") or optimizer.endswith("_layerwise"):
        raise EEVEError(
            f"`optimizer: {optimizer}` steps inside the backward pass, out of reach of what keeps rows frozen; set "
            "adamw_torch_fused or adamw_bnb_8bit (the state is small: only rows that train have any)"
        )


def _check_merge(cfg: Mapping[str, Any], stage: Stage) -> None:
    method = cfg.get("merge_method")
    if stage.internal_layers is Layers.QLORA and method not in (None, "legacy"):
        raise EEVEError(
            f"`merge_method: {method}` would round the embeddings to 4 bits when the adapter is merged; remove the key "
            "(the plugin sets `legacy`, which leaves them as they are)"
        )


def _check_adapter(cfg: Mapping[str, Any], stage: Stage) -> None:
    adapter = cfg.get("adapter")
    if cfg.get("merge_lora"):  # `axolotl merge-lora` loads the same YAML with quantisation switched off
        return
    if stage.internal_layers is Layers.QLORA:
        if adapter != "qlora":
            raise EEVEError(
                f"stage {stage.name} trains the internal layers with QLoRA; add `adapter: qlora` and "
                "`load_in_4bit: true`, with lora_r, lora_alpha and lora_target_linear"
            )
    elif adapter:
        raise EEVEError(
            f"stage {stage.name} keeps the internal layers {stage.internal_layers.value}, but `adapter: "
            f"{adapter}` adds trainable weights to them; remove `adapter`, or use stage 6 or 7"
        )
    elif cfg.get("load_in_4bit") or cfg.get("load_in_8bit"):
        raise EEVEError(
            f"stage {stage.name} trains without an adapter, which a quantised model cannot; remove load_in_4bit "
            "and load_in_8bit"
        )


def _check_modules_to_save(cfg: Mapping[str, Any], stage: Stage) -> None:
    given = cfg.get("lora_modules_to_save")
    if given and stage.internal_layers is not Layers.QLORA:
        raise EEVEError("`lora_modules_to_save` has no meaning without an adapter; remove it")
    if given and set(given) != set(wanted := modules_to_save(cfg, stage)):
        raise EEVEError(
            f"`lora_modules_to_save: {list(given)}` contradicts stage {stage.name}, which trains "
            f"{' and '.join(wanted) if wanted else 'neither embedding matrix'}; remove the key, the plugin sets it"
        )


def modules_to_save(cfg: Mapping[str, Any], stage: Stage) -> list[str]:
    """The embedding modules that PEFT must train in full beside the adapters, by their names in the model."""
    if stage.internal_layers is not Layers.QLORA:
        return []
    wanted = {"input": stage.input_embeddings, "output": stage.output_embeddings}
    sides = [side for side, rows in wanted.items() if rows is not Rows.NONE]
    return embedding_names(cfg, sides) if sides else []


def check_attention(cfg: Mapping[str, Any]) -> None:
    """Raise EEVEError if flash-attention 2 is asked for and neither installed nor to be had as the hub's kernel."""
    from transformers.integrations.hub_kernels import load_and_register_attn_kernel
    from transformers.utils import is_flash_attn_2_available

    asked = cfg.get("attn_implementation")
    if asked != "flash_attention_2" or is_flash_attn_2_available():
        return
    try:
        load_and_register_attn_kernel("kernels-community/flash-attn2")  # what transformers takes instead
    except Exception:  # no network, no build for this machine, no GPU: transformers too catches all of them
        raise EEVEError(
            f"`attn_implementation: {asked}` is asked for and flash-attn is not installed (nor to be had from the "
            "hub); install `eeve-axolotl[flash-attn]`, or set `attn_implementation: sdpa`, without sample packing"
        ) from None


def check_inputs(cfg: Mapping[str, Any]) -> None:
    """Raise EEVEError for the first of `input_problems`."""
    for problem in input_problems(cfg):
        raise EEVEError(problem)


def input_problems(cfg: Mapping[str, Any], made: Collection[Path] = ()) -> Iterator[str]:
    """What is missing or empty of the base model, the tokenizer and local corpora, a sentence each.

    Only local paths are looked at; a hub name is left to Axolotl.

    Args:
        made: absolute places that a step before this one makes.
    """
    base = cfg.get("base_model")
    if base and not Path(base).is_dir() and Path(base).absolute() not in made:
        maker = _who_makes(base, cfg)  # outputs/stage2 could be a hub name too
        if maker or is_local_path(base):
            maker = maker or "run the stage that makes it first, or give the directory of a model"
            yield f"base_model {base} does not exist; {maker}"
    output = cfg.get("output_dir")
    if base and output and Path(str(output)).resolve() == Path(base).resolve():
        yield f"output_dir {output} is the base model itself, which the run would overwrite; choose another output_dir"
    tokenizer = cfg.get("tokenizer_config")
    if tokenizer and is_local_path(tokenizer) and not Path(tokenizer).is_dir():
        if Path(tokenizer).absolute() not in made:
            yield (
                f"tokenizer_config {tokenizer} does not exist; build it with `axolotl eeve tokenizer`, or give the "
                "directory of an extended tokenizer"
            )
    evaluate = (cfg.get("eeve") or {}).get("evaluate") or {}
    for name, path in (evaluate.get("texts") or {}).items():
        if not Path(path).exists() and not _below(path, made):
            yield f"eeve.evaluate: the held-out text {name}, {path}, does not exist; give a JSON-lines file"
    for key in ("datasets", "pretraining_dataset"):
        entries = cfg.get(key) or []
        for entry in [entries] if isinstance(entries, Mapping | str) else entries:
            yield from _dataset_problems(entry, key, made)


def _below(path: str, places: Collection[Path]) -> bool:
    return any(place in (Path(path).absolute(), *Path(path).absolute().parents) for place in places)


def is_local_path(value: str) -> bool:
    """Whether this can only be a path: it exists, begins like one, or has more than a hub name's one slash."""
    return Path(value).exists() or value.startswith((".", "/", "~")) or value.rstrip("/").count("/") > 1


def _who_makes(base: str, cfg: Mapping[str, Any]) -> str | None:
    """Name the YAML beside this one whose output the missing base model is; None if none makes it."""
    config = Path(str(cfg.get("axolotl_config_path") or ""))
    if config.is_file():
        for other in sorted(config.parent.glob("*.yml")):
            if other == config:
                continue
            start = start_of(other)
            if start.get("output") and same_place(base, str(start["output"])):
                return f"`start` in {other} makes it of {start.get('base')}: run `axolotl eeve run {other}` first"
            output = output_of(other)
            if output is None:
                continue
            if same_place(base, output):
                return f"it is what {other} makes: run `axolotl train {other}` first"
            if same_place(base, Path(output) / "merged"):
                return f"it is what {other} makes: run `axolotl train {other}` and then `axolotl merge-lora {other}` first"
    return None


def output_of(config: Path) -> str | None:
    """The `output_dir` that the YAML `config` names; None where it names none, or is not YAML."""
    return _content(config).get("output_dir")


def start_of(config: Path) -> dict[str, Any]:
    """The block `start` of a pipeline's YAML; empty where `config` has none, or is not YAML."""
    found = _content(config).get("start")
    return found if isinstance(found, dict) else {}


def _content(config: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _dataset_problems(entry: Mapping | str, key: str, made: Collection[Path]) -> Iterator[str]:
    path = entry if isinstance(entry, str) else entry.get("path")
    files = [] if isinstance(entry, str) else (entry.get("data_files") or [])
    files = [files] if isinstance(files, str) else list(files)
    if not files and path and (path.startswith((".", "/", "~")) or Path(path).exists()):
        files = [path]
    for name in files:
        if "://" in name or _below(name, made):
            continue
        found = sorted(Path().glob(name)) if not Path(name).is_absolute() else _absolute_glob(name)
        if not found:
            yield f"the corpus {name} (in `{key}`) does not exist; give the path of your text"
        elif not any(_has_content(path) for path in found):
            yield f"the corpus {name} (in `{key}`) is empty; give text to train on"


def _absolute_glob(name: str) -> list[Path]:
    root = Path(name).anchor
    return sorted(Path(root).glob(str(Path(name).relative_to(root))))


def _has_content(path: Path) -> bool:
    if path.is_dir():
        return any(child.is_file() and child.stat().st_size for child in path.rglob("*"))
    return path.stat().st_size > 0
