"""`axolotl eeve check`: what a recipe would do and what would stop it, told without loading a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl import checks, preflight
from eeve_axolotl.args import ScheduledStage, read_block
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.logs import logger
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.pipeline.tasks import Tasks
from eeve_axolotl.preflight import Found, Recipe
from eeve_axolotl.run import StageRun
from eeve_axolotl.settings import Settings, duplicate_keys, read_mapping, read_yaml
from eeve_axolotl.stages import Layers, Rows
from eeve_axolotl.text import where_it_reads
from eeve_axolotl.tokenizer.build import check_base
from eeve_axolotl.tokenizer.settings import TokenizerSettings

LOG = logger("check")

_ROWS = {Rows.NONE: "frozen", Rows.NEW: "the new rows train", Rows.ALL: "all rows train"}
_LAYERS = {
    Layers.FROZEN: "frozen",
    Layers.QLORA: "frozen, with adapters that train",
    Layers.FULL: "all train",
}


def look(cfg: Mapping[str, Any], made: Collection[Path] = ()) -> Found:
    """Everything that would stop the run, and what cannot be known here. `cfg` is the raw YAML.

    Args:
        made: absolute places that a step before this one makes.
    """
    settings, of_block = None, []
    if not preflight.is_plain(cfg):
        try:
            settings = read_block(cfg)
        except EEVEError as error:
            of_block = [str(error)]
    with _loaded_plugins(cfg) as plugins:
        found = preflight.look(Recipe(cfg, settings, plugins, made))
        found.problems[:0] = of_block
        if _will_train_here():
            try:
                checks.check_attention(cfg)
            except EEVEError as error:
                found.problems.append(str(error))
        found.problems += [each for each in _axolotls(cfg, plugins) if each not in found.problems]
    return found


def kind_of(cfg: Mapping[str, Any]) -> type[Settings] | None:
    """What a YAML of ours is, by its keys; None for an Axolotl config."""
    if {"base_model", "eeve", "plugins"} & {*cfg}:
        return None
    own: dict[str, type[Settings]] = {
        "runs": PipelineSettings,
        "mix": CorpusSettings,
        "base": TokenizerSettings,
    }
    for key, schema in own.items():
        if key in cfg:
            return schema
    for schema in own.values():  # its own key misspelt or left out
        if len({*cfg} & {*schema.model_fields}) > 1:
            return schema
    return None


def look_at_ours(path: str, schema: type[Settings], changes: Iterable[str] = ()) -> Found:
    """What would stop the command that reads a tokenizer, corpus or pipeline YAML: its validator, a tokenizer's base."""
    found = Found()
    found.problems += [
        f"`{key}` stands in lines {' and '.join(map(str, lines))} of {path}, and only the last counts; keep one"
        for key, lines in duplicate_keys(path)
    ]
    try:
        settings = read_yaml(path, schema, changes)
        if isinstance(settings, TokenizerSettings):
            check_base(settings)
        if isinstance(settings, PipelineSettings):
            _look_at_pipeline(path, settings, found)
    except EEVEError as error:
        found.problems.append(str(error))
    return found


def _look_at_pipeline(path: str, settings: PipelineSettings, found: Found) -> None:
    """Add what a pipeline's own files tell, each by what reads it, and its runs as if all before each were done."""
    made: set[Path] = set()
    for config, schema in ((settings.tokenizer, TokenizerSettings), (settings.corpus, CorpusSettings)):
        if config:
            found.problems += look_at_ours(config, schema).problems
            output = read_mapping(config).get("output") if Path(config).is_file() else None
            made |= {Path(str(output)).absolute()} if output else set()
    tasks = Tasks(path, settings)
    if tasks.start:
        found.problems += _problem(tasks.start.check_matrices)
    for run in tasks.runs:
        begins = tasks.start is not None and not tasks.start.done and run is tasks.runs[0]
        cfg = tasks.start.in_its_place(run.cfg) if tasks.start and begins else run.cfg
        of_run = look({**cfg, "axolotl_config_path": str(run.config)}, made)
        found.problems += [f"{run.config}: {each}" for each in of_run.problems]
        found.unknown += [f"{run.config}: {each}" for each in of_run.unknown]
        made |= {run.output.absolute(), run.result.absolute()}


def _problem(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except EEVEError as error:
        return [str(error)]
    return []


def notes(cfg: Mapping[str, Any]) -> list[str]:
    """What would not stop the run and should be known."""
    if cfg.get("trainer_cls") == checks.TRAINER or preflight.is_plain(cfg):
        return []
    return [
        f"without `trainer_cls: {checks.TRAINER}` a machine that lacks this package would train everything, "
        "and say nothing"
    ]


def what_happens(cfg: Mapping[str, Any]) -> list[str]:
    """Where the run starts, what trains in each of its stages and where the weights go, a line each.

    Raises EEVEError if the `eeve:` block is missing or not valid.
    """
    base, output = cfg.get("base_model"), cfg.get("output_dir") or "./model-out"
    lines = [f"starts from {base}{'' if Path(str(base)).is_dir() else ' (not a directory here)'}"]
    if preflight.is_plain(cfg):
        plain = "no stage: without `eeve:` and our plugin it is plain Axolotl, which trains what it says and freezes no rows"
        return [plain, *lines, f"writes to {output}", *([_merged(output)] if cfg.get("adapter") else [])]
    settings = read_block(cfg)
    for each in settings.schedule():
        lines += _stage(each, settings.frozen_precision is not None)
    if settings.untie:
        lines.append("a model with tied embeddings gets an output matrix of its own first")
    if settings.global_batch_size:
        lines.append(f"a step has {settings.global_batch_size:,} sequences on any number of GPUs")
    lines.append(where_it_reads(cfg, settings))
    lines.append(f"writes to {output}")
    if any(each.resolved().internal_layers is Layers.QLORA for each in settings.schedule()):
        lines.append(_merged(output))
    return lines


def _merged(output: str) -> str:
    return f"then `axolotl merge-lora` writes the whole model to {output.rstrip('/')}/merged"


def _stage(scheduled: ScheduledStage, in_fp8: bool) -> list[str]:
    stage = scheduled.resolved()
    rates = {matrix: f", learning rate {rate:g} at its peak" for matrix, rate in scheduled.own_rates.items()}
    purpose = f": {stage.purpose}" if stage.purpose else ""
    layers = _LAYERS[stage.internal_layers] + (", read in 8 bits (fp8)" if in_fp8 else "")
    return [
        f"stage {stage.name}{purpose}",
        f"  input embeddings: {_ROWS[stage.input_embeddings]}{rates.get('input_embeddings', '')}",
        f"  output embeddings: {_ROWS[stage.output_embeddings]}{rates.get('output_embeddings', '')}",
        f"  internal layers: {layers}",
    ]


def _will_train_here() -> bool:
    """Whether this machine has a GPU, and the hub need not be asked for its attention kernels."""
    import torch
    from huggingface_hub import constants

    return torch.cuda.is_available() and constants.HF_HUB_OFFLINE


@contextlib.contextmanager
def _loaded_plugins(cfg: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The plugins that `cfg` names, as far as they can be imported, in force in Axolotl's manager meanwhile."""
    from axolotl.integrations.base import PluginManager, load_plugin

    plugins = PluginManager.get_instance().plugins
    names = cfg.get("plugins") or []
    for name in names if isinstance(names, list) else [names]:
        try:
            plugins[str(name)] = load_plugin(str(name))
        except Exception as error:  # whatever its module does when it is imported
            LOG.info("%s: %s", name, error)
    try:
        yield dict(plugins)
    finally:
        plugins.clear()


def _axolotls(cfg: Mapping[str, Any], plugins: Mapping[str, Any]) -> list[str]:
    """What Axolotl's own validation says, for a machine with H100s where this one has no GPU."""
    import torch
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.deprecated import DeprecatedParameters
    from pydantic import ValidationError

    # The preflight has told of the deprecated ones, all of them; Axolotl would stop at the first.
    raw = DictDefault(
        {key: each for key, each in cfg.items() if key not in DeprecatedParameters.model_fields}
    )
    h100 = {"bf16": True, "tf32": True, "fp8": True, "n_gpu": 1, "compute_capability": "sm_90"}
    try:
        for plugin in plugins.values():
            if type(plugin).__name__ != preflight.OURS:
                plugin.register(raw)
        with contextlib.suppress(EEVEError):  # told already
            StageRun.from_config(raw).set_implied_keys(raw)
        validate_config(
            raw, capabilities=h100, env_capabilities={"torch_version": torch.__version__.split("+")[0]}
        )
    except ValidationError as error:
        return [_of_pydantic(each) for each in error.errors() if each["loc"][:1] != ("eeve",)]
    except (Exception, SystemExit) as error:  # validators and other plugins raise what they like
        return [f"Axolotl: {' '.join(str(error).split()) or type(error).__name__}"]
    return []


def _of_pydantic(error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    said = " ".join(str(error["msg"]).removeprefix("Value error, ").split())
    return f"Axolotl: {key}: {said}" if key else f"Axolotl: {said}"
