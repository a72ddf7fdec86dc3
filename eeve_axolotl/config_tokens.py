"""The tokenizer as Axolotl loads it: with a config's own `tokens`, `special_tokens` and `added_tokens_overrides`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from eeve_axolotl import vocabulary
from eeve_axolotl.args import EEVESettings
from eeve_axolotl.errors import EEVEError, UnknownError
from eeve_axolotl.logs import logger
from eeve_axolotl.vocabulary import Vocabulary, id_count

LOG = logger("tokens")

_ADD = ("tokens", "special_tokens")
_RENAME = "added_tokens_overrides"


def tokenizer_of(cfg: Mapping[str, Any]) -> Any:
    """The tokenizer of a run with what its config adds to it, loaded by Axolotl; nothing is written.

    Beside adapters Axolotl reads `lora_modules_to_save` too, which the stage decides.

    Raises EEVEError where there is none, UnknownError where only the hub has it.
    """
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.dict import DictDefault

    name = _name(cfg)
    with tempfile.TemporaryDirectory() as scratch:  # renamed tokens are written to output_dir
        of_its_own = {"tokenizer_config": name, "output_dir": scratch, "chat_template": None}
        try:
            return load_tokenizer(DictDefault({**cfg, **of_its_own}))
        except Exception as error:  # whatever transformers and Axolotl raise at keys that do not fit
            _plain(cfg)
            keys = [key for key in (*_ADD, _RENAME) if cfg.get(key)]
            because = " and ".join(f"`{key}`" for key in keys) or "its files"
            if "lora_modules_to_save" in str(error):
                raise EEVEError(
                    f"{because} would change the tokenizer, which Axolotl allows beside adapters only where both embedding "
                    "matrices train and have the names that it knows; remove what this config adds, and take as "
                    "tokenizer_config a tokenizer that has it (a stage without adapters writes one beside its weights)"
                ) from None
            raise EEVEError(
                f"no tokenizer can be made of {name} with {because} ({_short(error)}); correct that"
            ) from None


def vocabulary_of(
    cfg: Mapping[str, Any], tokenizer: Any, rows: int, settings: EEVESettings, mark: dict[str, int] | None
) -> Vocabulary:
    """Which tokens of a run's tokenizer are new (see `vocabulary.resolve`).

    Args:
        tokenizer: as Axolotl loads it (see `tokenizer_of`).
        rows: of the base model's checkpoint.
        mark: in the base model's config.

    Raises EEVEError, naming the keys of the config that changed the tokenizer.
    """
    with _naming(cfg):
        return vocabulary.resolve(
            tokenizer,
            rows,
            needs_new_rows=any(each.resolved().trains_new_rows_only for each in settings.schedule()),
            explicit=settings.base_vocab_size,
            manifest=vocabulary.manifest_base_size(_name(cfg)),
            mark=mark,
            base_tokenizer=_tokenizer_beside(cfg),
        )


@contextlib.contextmanager
def _naming(cfg: Mapping[str, Any]) -> Iterator[None]:
    """Say in an EEVEError on the tokenizer which keys of the config changed it."""
    try:
        yield
    except UnknownError:
        raise
    except EEVEError as error:
        changes = list(_changes(cfg))
        raise EEVEError(f"{error} ({'; '.join(changes)})" if changes else str(error)) from None


def _changes(cfg: Mapping[str, Any]) -> Iterator[str]:
    if cfg.get(_RENAME):
        ids = ", ".join(str(each) for each in cfg[_RENAME])
        yield f"`{_RENAME}` of this config renames the tokens of id {ids}"
    adding = [key for key in _ADD if cfg.get(key)]
    try:
        plain = id_count(_plain(cfg)) if adding else 0
        added = id_count(tokenizer_of(cfg)) - plain if adding else 0
    except EEVEError:
        return
    if added > 0:
        keys = " and ".join(f"`{key}`" for key in adding)
        yield f"{keys} of this config add {added:,} to the {plain:,} tokens of {_name(cfg)}"


def _tokenizer_beside(cfg: Mapping[str, Any]) -> Any:
    """The base model's own tokenizer, to hold the run's against; None where there is none to compare."""
    base = str(cfg.get("base_model") or "")
    if not cfg.get("tokenizer_config") or cfg["tokenizer_config"] == base:
        return None
    return vocabulary.tokenizer_beside(base, cfg.get("revision_of_model") or "main")


def _plain(cfg: Mapping[str, Any]) -> Any:
    """The tokenizer without what the config adds."""
    from transformers import AutoTokenizer

    name = _name(cfg)
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=bool(cfg.get("trust_remote_code")))
    except Exception as error:  # whatever transformers and tokenizers raise at a file that is not whole
        if os.path.isdir(name):
            raise EEVEError(
                f"{name} holds no tokenizer ({_short(error)}); build or download it again"
            ) from None
        raise UnknownError(
            f"the tokenizer {name} is no directory here, and the hub could not be asked about it "
            f"({type(error).__name__}); download it, or go online"
        ) from None


def _name(cfg: Mapping[str, Any]) -> str:
    return str(cfg.get("tokenizer_config") or cfg.get("base_model") or "")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
