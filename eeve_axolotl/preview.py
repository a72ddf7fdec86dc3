"""`axolotl eeve check`: what a recipe would do and what would stop it, told without loading a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl import batch, checks, records, sharding, vocabulary
from eeve_axolotl.args import EEVESettings, read_block
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.stages import Layers, Rows, Stage
from eeve_axolotl.text import check_text, where_it_reads

PLUGIN = "eeve_axolotl.EEVEPlugin"

_ROWS = {Rows.NONE: "frozen", Rows.NEW: "the new rows train", Rows.ALL: "all rows train"}
_LAYERS = {
    Layers.FROZEN: "frozen",
    Layers.QLORA: "frozen, with adapters that train",
    Layers.FULL: "all train",
}


def problems(cfg: Mapping[str, Any]) -> list[str]:
    """Everything that would stop the run, a sentence each; empty if nothing would.

    Ours come first, all of them; Axolotl's own validation is asked once there are none. `cfg` is the raw YAML.
    """
    found = []

    def note(check: Callable[..., object], *args: object) -> None:
        try:
            check(*args)
        except EEVEError as error:
            if str(error) not in found:
                found.append(str(error))

    if PLUGIN not in (cfg.get("plugins") or []):
        found.append(
            f"the plugin is not listed, so Axolotl would train everything; add `plugins: [{PLUGIN}]`"
        )
    settings = read_block(cfg)
    stages = [each.resolved() for each in settings.schedule()]
    for stage in stages:
        note(checks.check_config, cfg, stage)
    note(check_text, cfg, settings)
    note(sharding.check_sharding, cfg, settings.untie, len(stages))
    note(batch.implied_accumulation, cfg, settings.global_batch_size)
    note(checks.check_inputs, cfg)
    note(_check_tokenizer, cfg, settings)
    note(_check_head, cfg)
    if _will_train_here():
        note(checks.check_attention, cfg)
    return found or _axolotls(cfg)


def notes(cfg: Mapping[str, Any]) -> list[str]:
    """What would not stop the run and should be known."""
    if cfg.get("trainer_cls") == checks.TRAINER:
        return []
    return [
        f"without `trainer_cls: {checks.TRAINER}` a machine that lacks this package would train everything, "
        "and say nothing"
    ]


def what_happens(cfg: Mapping[str, Any]) -> list[str]:
    """Where the run starts, what trains in each of its stages and where the weights go, a line each.

    Raises EEVEError if the `eeve:` block is missing or not valid.
    """
    settings = read_block(cfg)
    base = cfg.get("base_model")
    lines = [f"starts from {base}{'' if Path(str(base)).is_dir() else ' (not a directory here)'}"]
    for each in settings.schedule():
        lines += _stage(each.resolved())
    if settings.untie:
        lines.append("a model with tied embeddings gets an output matrix of its own first")
    if settings.global_batch_size:
        lines.append(f"a step has {settings.global_batch_size:,} sequences on any number of GPUs")
    lines.append(where_it_reads(cfg, settings))
    output = cfg.get("output_dir") or "./model-out"
    lines.append(f"writes to {output}")
    if any(each.resolved().internal_layers is Layers.QLORA for each in settings.schedule()):
        lines.append(f"then `axolotl merge-lora` writes the whole model to {output.rstrip('/')}/merged")
    return lines


def _stage(stage: Stage) -> list[str]:
    purpose = f": {stage.purpose}" if stage.purpose else ""
    return [
        f"stage {stage.name}{purpose}",
        f"  input embeddings: {_ROWS[stage.input_embeddings]}",
        f"  output embeddings: {_ROWS[stage.output_embeddings]}",
        f"  internal layers: {_LAYERS[stage.internal_layers]}",
    ]


def _check_tokenizer(cfg: Mapping[str, Any], settings: EEVESettings) -> None:
    """A built tokenizer against `eeve.base_vocab_size` and the base model's mark and rows, by their files."""
    directory, base = cfg.get("tokenizer_config"), cfg.get("base_model") or ""
    config = Path(base) / "config.json"
    if not directory or not Path(directory).is_dir() or not config.is_file():
        return
    content = records.read(config, records.MODEL_CONFIG) or {}
    if content.get("vocab_size") is None:
        return
    base_tokenizer = None
    if any((Path(base) / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        base_tokenizer = _tokenizer(base)
    vocabulary.resolve(
        _tokenizer(directory),
        content["vocab_size"],
        needs_new_rows=any(each.resolved().trains_new_rows_only for each in settings.schedule()),
        explicit=settings.base_vocab_size,
        manifest=vocabulary.manifest_base_size(directory),
        mark=content.get(records.MARK),
        base_tokenizer=base_tokenizer,
    )


def _tokenizer(directory: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # whatever transformers and tokenizers raise at a file that is not whole
        said = " ".join(str(error).split())[:200]
        raise EEVEError(f"{directory} holds no tokenizer ({said}); build or download it again") from None


def _check_head(cfg: Mapping[str, Any]) -> None:
    """The loss against the head that the base model's config describes."""
    base = cfg.get("base_model") or ""
    if not (cfg.get(checks.LIGER_LOSS) and (Path(base) / "config.json").is_file()):
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    except Exception as error:  # each architecture checks its keys in its own way
        said = " ".join(str(error).split())[:200]
        raise EEVEError(
            f"no model can be made of {base}/config.json ({said}); put back the base model's"
        ) from None
    checks.check_head(cfg, model)


def _will_train_here() -> bool:
    """Whether this machine has a GPU, and the hub need not be asked for its attention kernels."""
    import torch
    from huggingface_hub import constants

    return torch.cuda.is_available() and constants.HF_HUB_OFFLINE


def _axolotls(cfg: Mapping[str, Any]) -> list[str]:
    """What Axolotl's own validation says, for a machine with H100s where this one has no GPU."""
    import torch
    from axolotl.cli.config import prepare_plugins
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from pydantic import ValidationError

    raw = DictDefault(dict(cfg))
    h100 = {"bf16": True, "tf32": True, "fp8": True, "n_gpu": 1, "compute_capability": "sm_90"}
    try:
        prepare_plugins(raw)
        validate_config(
            raw, capabilities=h100, env_capabilities={"torch_version": torch.__version__.split("+")[0]}
        )
    except (ValidationError, ValueError, SystemExit) as error:
        return [" ".join(str(error).split())]
    finally:
        PluginManager.get_instance().plugins.clear()
    return []
