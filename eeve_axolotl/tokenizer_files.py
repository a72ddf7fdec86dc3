"""The files of a tokenizer, and what of its configuration transformers leaves behind when it saves the tokenizer again.

transformers writes as much of `tokenizer_config.json` as its classes know. It leaves out settings (`legacy` of Llama-2)
that decide how the very same tokenizer cuts text when it is loaded again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG = "tokenizer_config.json"
FAST = "PreTrainedTokenizerFast"
"""The class that takes a `tokenizer.json` as it is, by the name that transformers 4 knows too."""

_OF_THE_PLACE = {
    "is_local",
    "local_files_only",
    "name_or_path",
    "vocab_file",
    "merges_file",
    "tokenizer_file",
}
"""Keys that say where a tokenizer was loaded from, which says nothing elsewhere."""

_CODE = "auto_map"  # names Python files beside the base's tokenizer, which was loaded without them
_ADDED, _EXTRA, _ADDITIONAL = "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens"


def find(name: str | Path, file: str) -> Path | None:
    """A file in a tokenizer's directory, or in the hub's cache of a tokenizer; None if there is none."""
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    from transformers.utils import cached_file

    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors")}
    try:
        found = cached_file(str(name), file, **quiet)
    except (OSError, ValueError):  # a path that is not there, or no name for a hub
        return None
    return None if found is None else Path(found)


def config_of(tokenizer: PreTrainedTokenizerBase, saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict:
    """The `tokenizer_config.json` of a tokenizer: what transformers `saved`, and what that lacks of its `own` one.

    `own` is what it was loaded from. What both have is as it was saved, for settings may have changed since. The form is
    that of `own`, which other programs and earlier versions of transformers read.
    """
    lost = {key: value for key, value in own.items() if key not in saved}
    config = {**saved, **lost}
    for key in saved.keys() & own.keys():
        if _text_of(own[key]) == _text_of(saved[key]):  # a token with its properties, or the text alone
            config[key] = own[key]
    if _ADDED in own:
        config[_ADDED] = {str(i): _properties(token) for i, token in tokenizer.added_tokens_decoder.items()}
    if _ADDITIONAL in own:
        config[_ADDITIONAL] = config.pop(_EXTRA, [])
    if "chat_template" in own:
        config["chat_template"] = tokenizer.chat_template
    config["tokenizer_class"] = _class_of(tokenizer, own)
    return {key: value for key, value in config.items() if key not in {*_OF_THE_PLACE, _CODE}}


def _class_of(tokenizer: PreTrainedTokenizerBase, own: Mapping[str, Any]) -> str:
    """The class to load the tokenizer with again."""
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast:
        return FAST
    name, now = str(own.get("tokenizer_class") or ""), type(tokenizer).__name__
    return name if name.removesuffix("Fast") == now.removesuffix("Fast") else now


def _text_of(token: Any) -> Any:
    return token["content"] if isinstance(token, Mapping) and "content" in token else token


def _properties(token: Any) -> dict[str, Any]:
    kept = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {key: getattr(token, key) for key in kept}


def read_config(name: str | Path) -> dict[str, Any]:
    """A tokenizer's own `tokenizer_config.json`; empty if it has none that can be read."""
    file = find(name, CONFIG)
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
