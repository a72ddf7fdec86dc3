"""The base model before it is loaded: what its config, and its class built without weights, say of its embeddings."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl.errors import EEVEError, UnknownError

# Keys with which a config changes the model's, by either of their names.
_OVERRIDES = ("overrides_of_model_config", "model_config", "overrides_of_model_kwargs", "model_kwargs")
_TIE = "tie_word_embeddings"


def model_config(cfg: Mapping[str, Any]) -> Any:
    """The base model's config as transformers reads it.

    Raises UnknownError where it is not here and the hub does not give it, EEVEError where it cannot be read.
    """
    return _config(*_place(cfg))


def on_meta(cfg: Mapping[str, Any]) -> Any:
    """The base model's own class, without weights. Raises as `model_config` does."""
    return _on_meta(*_place(cfg))


def is_tied(cfg: Mapping[str, Any]) -> bool:
    """Whether the base model's input and output embeddings are one matrix. Raises as `model_config` does."""
    try:
        model = on_meta(cfg)
        return model.get_input_embeddings().weight is model.get_output_embeddings().weight
    except UnknownError:
        raise
    except (EEVEError, AttributeError, NotImplementedError):  # no class for it, or no such matrices
        return bool(model_config(cfg).get_text_config().tie_word_embeddings)


def quantisation(cfg: Mapping[str, Any]) -> str | None:
    """How the base model's weights are quantised, in one word; None where they are not. Raises as `model_config` does."""
    config = model_config(cfg)
    found = getattr(config, "quantization_config", None) or getattr(
        config.get_text_config(), "quantization_config", None
    )
    if not found:
        return None
    method = found.get("quant_method") if isinstance(found, Mapping) else getattr(found, "quant_method", None)
    return str(getattr(method, "value", method) or "quantization_config")


def embedding_names(cfg: Mapping[str, Any], sides: list[str]) -> list[str]:
    """The last part of the dotted name of each embedding module ("input", "output"), asked of the model's own class.

    Axolotl's table of names knows a few architectures only, and PEFT passes over a name that no module has.
    """
    model = on_meta(cfg)
    modules = [getattr(model, f"get_{side}_embeddings")() for side in sides]
    return [
        next(name for name, each in model.named_modules() if each is module).rpartition(".")[2]
        for module in modules
    ]


def override_problems(cfg: Mapping[str, Any]) -> Iterator[str]:
    """What ties or unties the base model's embeddings as it is loaded, a sentence each.

    Untied in that way the head begins with random numbers; tied, the base's own head is lost.
    """
    for key in _OVERRIDES:
        given = cfg.get(key)
        if not isinstance(given, Mapping):
            continue
        text = given.get("text_config")
        for where, values in (
            (key, given),
            (f"{key}.text_config", text if isinstance(text, Mapping) else {}),
        ):
            if _TIE not in values or bool(values[_TIE]) == is_tied(cfg):
                continue
            became = "lose its own head" if values[_TIE] else "get a head of random numbers"
            instead = (
                "" if values[_TIE] else ", and set `eeve.untie: true`, which gives it a copy of its matrix"
            )
            yield f"`{where}.{_TIE}: {values[_TIE]}` would make the base model {became}; remove it{instead}"


def _place(cfg: Mapping[str, Any]) -> tuple[str, str, bool, int]:
    """Where the config is, its revision, whether its code may run, and when its file was written."""
    base = str(cfg.get("base_model_config") or cfg.get("base_model") or "")
    revision = cfg.get("revision_of_model") or cfg.get("model_revision") or "main"
    file = Path(base) / "config.json"
    written = file.stat().st_mtime_ns if file.is_file() else 0
    return base, str(revision), bool(cfg.get("trust_remote_code")), written


@functools.lru_cache(maxsize=4)
def _config(base: str, revision: str, trust: bool, written: int) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=trust)
    except Exception as error:  # each architecture checks its keys in its own way
        if Path(base).is_dir():
            raise _no_model(base, error) from None
        raise UnknownError(
            f"{base} is no directory here, and the hub could not be asked about it ({type(error).__name__}); download it, "
            "or go online"
        ) from None


@functools.lru_cache(maxsize=4)
def _on_meta(base: str, revision: str, trust: bool, written: int) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(base, revision, trust, written)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    except Exception as error:  # of a model that is no causal language model, or whose config is not whole
        raise _no_model(base, error) from None


def _no_model(base: str, error: Exception) -> EEVEError:
    said = " ".join(str(error).split())[:200]
    return EEVEError(f"no model can be made of {base}/config.json ({said}); put back the base model's")
