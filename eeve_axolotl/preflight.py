"""The one list of what would stop a run before it trains: `axolotl eeve check` goes through all of it, `axolotl train`
up to the first that is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eeve_axolotl import base_model, batch, checks, config_tokens, sharding
from eeve_axolotl.args import EEVESettings
from eeve_axolotl.corpus.manifest import check_recipe
from eeve_axolotl.errors import EEVEError, UnknownError
from eeve_axolotl.logs import logger
from eeve_axolotl.records import MARK
from eeve_axolotl.settings import duplicate_keys, nearest, read_mapping
from eeve_axolotl.stages import Stage
from eeve_axolotl.text import check_text

LOG = logger("preflight")

# What stands in the config where this process trains nothing: commands that only read the YAML, and Ray's driver.
_TRAINS_NOTHING = ("inference", "is_preprocess", "use_ray")

OURS = "EEVEPlugin"
PLUGIN = f"eeve_axolotl.{OURS}"


@dataclass(frozen=True)
class Recipe:
    """An Axolotl config before Axolotl's own validation, and what is known around it."""

    cfg: Mapping[str, Any]
    block: EEVESettings | None
    """Its `eeve:` block; None where that is missing or not valid, which others tell."""
    plugins: Mapping[str, Any]
    """The plugins that could be imported, by the names that the config calls them."""
    made: Collection[Path] = field(default=())
    """Absolute places that a step before this run makes, as in a pipeline."""

    @property
    def settings(self) -> EEVESettings:
        """The `eeve:` block."""
        assert self.block is not None  # those that need it are not asked without
        return self.block

    @property
    def stages(self) -> list[Stage]:
        """The stages of the run."""
        return [each.resolved() for each in self.settings.schedule()]

    @property
    def has_base(self) -> bool:
        """Whether the base model can be looked at, be it on the hub: an output of an earlier step cannot."""
        base = str(self.cfg.get("base_model") or "")
        return Path(base).is_dir() or not (
            not base or Path(base).absolute() in self.made or checks.is_local_path(base)
        )


@dataclass
class Found:
    """What a preflight found."""

    problems: list[str] = field(default_factory=list)
    """What would stop the run, a sentence each."""
    unknown: list[str] = field(default_factory=list)
    """What could not be looked at here, a sentence each."""


def look(recipe: Recipe) -> Found:
    """Go through all checks; without a valid `eeve:` block, through those that do not need it."""
    found = Found()
    of_a_stage = OF_ANY_CONFIG if recipe.block is None else CHECKS
    for what, check in OF_PLAIN if is_plain(recipe.cfg) else of_a_stage:
        try:
            for problem in check(recipe):
                if problem not in found.problems:
                    found.problems.append(problem)
        except UnknownError as error:
            found.unknown.append(f"{what}: {error}")
        except EEVEError as error:
            if str(error) not in found.problems:
                found.problems.append(str(error))
        except Exception as error:  # a config of a shape that only Axolotl's validation tells in words
            found.unknown.append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return found


def stop_at_first(recipe: Recipe) -> None:
    """Raise EEVEError for the first problem; what is not known here is left to what comes after."""
    for what, check in CHECKS:
        try:
            for problem in check(recipe):
                raise EEVEError(problem)
        except UnknownError:
            continue
        except EEVEError:
            raise
        except Exception as error:  # Axolotl's own validation comes next and says it in its words
            LOG.warning(
                "not looked at: %s (%s: %s)", what, type(error).__name__, " ".join(str(error).split())[:200]
            )


def _duplicates(recipe: Recipe) -> Iterator[str]:
    """YAML takes the last of two, without a word: pasted lines drop those that were there."""
    path = recipe.cfg.get("axolotl_config_path")
    for key, lines in duplicate_keys(path) if path else []:
        where = ", ".join(str(line) for line in lines[:-1])
        more = "; put both lists under one" if key == "plugins" else "; keep one"
        yield f"`{key}` stands in lines {where} and {lines[-1]} of {path}, and only the last counts{more}"


def is_plain(cfg: Mapping[str, Any]) -> bool:
    """Whether a config says nothing of ours: no `eeve:`, no plugin, no trainer. Plain Axolotl trains it."""
    listed = cfg.get("plugins") or []
    named = str([*(listed if isinstance(listed, list) else [listed]), cfg.get("trainer_cls")])
    return "eeve" not in cfg and PLUGIN.partition(".")[0] not in named


def _importable(recipe: Recipe) -> Iterator[str]:
    for name in map(str, recipe.cfg.get("plugins") or []):
        if name not in recipe.plugins:
            yield (
                f"the plugin {name} cannot be imported, and Axolotl would go on without it; install what it needs, or "
                "remove it"
            )


def _plugins(recipe: Recipe) -> Iterator[str]:
    if not any(type(each).__name__ == OURS for each in recipe.plugins.values()):
        yield f"the plugin is not listed, so Axolotl would train everything; add `plugins: [{PLUGIN}]`"
    yield from _importable(recipe)
    for name, plugin in recipe.plugins.items():
        if type(plugin).__name__ == "SpectrumPlugin":
            yield (
                f"the plugin {name} unfreezes layers after the stage has frozen them (`unfrozen_parameters`); remove it"
            )
        elif type(plugin).__name__ != OURS and plugin.get_trainer_cls(recipe.cfg) is not None:
            yield (
                f"the plugin {name} brings a trainer of its own, in place of the one that keeps rows frozen; remove it"
            )


def _spelling(recipe: Recipe) -> Iterator[str]:
    """Keys that neither Axolotl nor a plugin knows, and that look like one that they do: Axolotl passes over them."""
    path = recipe.cfg.get("axolotl_config_path")
    keys = read_mapping(path) if path and Path(str(path)).is_file() else {}
    known = known_keys()
    for key in keys:
        meant = None if key in known else nearest(str(key), known)
        if meant:
            yield f"`{key}` is no key of Axolotl's, which passes over it; write `{meant}`, or remove it"


def known_keys() -> set[str]:
    """Axolotl's own keys and those of the plugins that are loaded, by every name."""
    from axolotl.integrations.config import merge_input_args

    _, schema = merge_input_args()
    fields = schema.model_fields
    return {*fields, *(each.alias for each in fields.values() if each.alias)}


def _deprecated(recipe: Recipe) -> Iterator[str]:
    """Keys that Axolotl no longer takes: its own validation ends in a traceback at the first."""
    from axolotl.utils.schemas.deprecated import DeprecatedParameters

    for key in DeprecatedParameters.model_fields:
        if recipe.cfg.get(key) is not None:
            try:
                DeprecatedParameters.model_validate({key: recipe.cfg[key]})
            except DeprecationWarning as error:
                yield f"Axolotl: {error}; remove it"


def _contradictions(recipe: Recipe) -> Iterator[str]:
    unknown = None
    for stage in recipe.stages:
        try:
            yield from checks.contradictions(recipe.cfg, stage)
        except UnknownError as error:
            unknown = error
    if unknown:
        raise unknown


def _sharding(recipe: Recipe) -> Iterator[str]:
    settings = recipe.settings
    return sharding.problems(
        recipe.cfg,
        settings.untie,
        len(recipe.stages),
        settings.frozen_precision is not None,
        bool(settings.rate_keys),
    )


def _adapters(recipe: Recipe) -> None:
    """Their names are asked of the model, whose config may lie on the hub only."""
    if recipe.has_base:
        for stage in recipe.stages:
            checks.modules_to_save(recipe.cfg, stage)


def _overrides(recipe: Recipe) -> Iterator[str]:
    if recipe.has_base:
        yield from base_model.override_problems(recipe.cfg)


def _tied(recipe: Recipe) -> Iterator[str]:
    needs = [stage for stage in recipe.stages if stage.needs_two_matrices]
    if needs and not recipe.settings.untie and recipe.has_base and base_model.is_tied(recipe.cfg):
        yield needs[0].refuses_one_matrix()


def _rates(recipe: Recipe) -> Iterator[str]:
    settings, cfg = recipe.settings, recipe.cfg
    yield from checks.rate_problems(cfg, settings.rate_keys)
    if settings.rate_keys and not settings.untie and recipe.has_base and base_model.is_tied(cfg):
        rate = float(cfg.get("learning_rate") or 0)  # Axolotl's own validation tells of one that is left out
        problems = (each.refuses_one_matrix(rate) for each in settings.schedule())
        yield from filter(None, problems)


def _head(recipe: Recipe) -> None:
    if recipe.cfg.get(checks.LIGER_LOSS) and recipe.has_base:
        checks.check_head(recipe.cfg, base_model.on_meta(recipe.cfg))


def _precision(recipe: Recipe) -> Iterator[str]:
    if recipe.settings.frozen_precision is None:
        return
    yield from checks.precision_problems(recipe.cfg, recipe.stages)
    quantised = base_model.quantisation(recipe.cfg) if recipe.has_base else None
    if quantised:
        yield (
            f"the base model is quantised already ({quantised}), so `eeve.frozen_precision: fp8` has nothing to hold in 8 "
            "bits; remove it, or start from the full-precision model"
        )


def _cards(recipe: Recipe) -> None:
    """Whether this machine's GPUs have FP8, where it is asked for and this machine will train."""
    if recipe.settings.frozen_precision and not any(recipe.cfg.get(key) for key in _TRAINS_NOTHING):
        from eeve_axolotl.frozen_precision.device import check_cards

        check_cards()


def _inputs(recipe: Recipe) -> Iterator[str]:
    yield from checks.input_problems(recipe.cfg, recipe.made)


def _tokenizer(recipe: Recipe) -> None:
    """The tokenizer with what the config adds to it, against the block, the base model's mark and its rows."""
    cfg = recipe.cfg
    name = str(cfg.get("tokenizer_config") or cfg.get("base_model") or "")
    missing = not Path(name).is_dir() and (checks.is_local_path(name) or Path(name).absolute() in recipe.made)
    # Only one process of a machine looks: Axolotl renames tokens in files that it writes there alone.
    elsewhere = os.environ.get("LOCAL_RANK", "0") != "0"
    if cfg.get("merge_lora") or cfg.get("tokenizer_use_mistral_common") or missing or elsewhere:
        return
    if not recipe.has_base:
        return
    config = base_model.model_config(cfg)
    beside_adapters = {"lora_modules_to_save": checks.modules_to_save(cfg, recipe.stages[0])}
    tokenizer = config_tokens.tokenizer_of({**cfg, **beside_adapters})
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None:
        return
    config_tokens.vocabulary_of(cfg, tokenizer, rows, recipe.settings, getattr(config, MARK, None))


def _raises(check: Callable[[Recipe], object]) -> Callable[[Recipe], Iterator[str]]:
    """A check that raises EEVEError, as one that yields sentences."""

    def problems(recipe: Recipe) -> Iterator[str]:
        check(recipe)
        yield from ()

    return problems


_OF_THE_FILE: list[tuple[str, Callable[[Recipe], Iterable[str]]]] = [
    ("keys that stand twice", _duplicates),
    ("the spelling of keys", _spelling),
    ("keys that Axolotl no longer takes", _deprecated),
    ("the inputs", _inputs),
]
OF_PLAIN = [("the plugins", _importable), *_OF_THE_FILE]
OF_ANY_CONFIG = [("the plugins", _plugins), *_OF_THE_FILE]
CHECKS: list[tuple[str, Callable[[Recipe], Iterable[str]]]] = [
    *OF_ANY_CONFIG,
    ("the stage against the config's other keys", _contradictions),
    ("the text", _raises(lambda each: check_text(each.cfg, each.settings))),
    ("the sharding", _sharding),
    ("frozen layers in 8 bits", _precision),
    ("FP8 on this machine's GPUs", _raises(_cards)),
    (
        "the batch",
        _raises(lambda each: batch.implied_accumulation(each.cfg, each.settings.global_batch_size)),
    ),
    ("the corpus", _raises(lambda each: check_recipe(each.cfg))),
    ("overrides of the model", _overrides),
    ("whether the embeddings are tied", _tied),
    ("learning rates of one matrix", _rates),
    ("the modules that train beside adapters", _raises(_adapters)),
    ("the loss of the head", _raises(_head)),
    ("the tokenizer", _raises(_tokenizer)),
]
"""What each looks at, and how; quick ones first."""
