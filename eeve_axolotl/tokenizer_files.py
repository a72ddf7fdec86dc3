"""What of a tokenizer's directory transformers leaves behind when it saves the tokenizer again, and how it travels on.

transformers writes `tokenizer.json` and as much of `tokenizer_config.json` as its classes know. It leaves out the manifest
that says where new ids begin, the SentencePiece model that llama.cpp's converter reads, and settings (`legacy` of
Llama-2) that decide how the very same tokenizer cuts text when it is loaded again.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import write_json, writing
from eeve_axolotl.records import SENTENCEPIECE_MODEL, TOKENIZER_MANIFEST

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG = "tokenizer_config.json"
ADDED = "added_tokens.json"
"""What llama.cpp's converter reads beside `tokenizer.model`: tokens that came later, and their ids."""

GENERATION = "generation_config.json"
FAST = "PreTrainedTokenizerFast"
"""The class that takes a `tokenizer.json` as it is, by the name that transformers 4 knows too."""

_TRAVELLERS = (SENTENCEPIECE_MODEL, TOKENIZER_MANIFEST)  # the manifest last: it says that the rest is there
_OF_THE_PLACE = ("is_local", "local_files_only")
_PATHS = ("_file", "_path", "_dir")
"""How keys end that say where a tokenizer was loaded from, which says nothing elsewhere."""

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
    left_out = (*_OF_THE_PLACE, _CODE)
    return {key: value for key, value in config.items() if key not in left_out and not key.endswith(_PATHS)}


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


def complete(tokenizer: PreTrainedTokenizerBase, directory: Path, own: Mapping[str, Any]) -> None:
    """Put beside a tokenizer of ours that transformers has saved in `directory` what transformers left out.

    Args:
        own: the configuration that it was loaded with.
    """
    saved = directory / CONFIG
    if saved.is_file():
        write_json(saved, config_of(tokenizer, json.loads(saved.read_text(encoding="utf-8")), own))
    copy(tokenizer.name_or_path, directory)


def copy(source: str | Path, directory: Path) -> None:
    """Copy the files that transformers does not know from one place of a tokenizer of ours to another."""
    if find(source, TOKENIZER_MANIFEST) is None or Path(source).resolve() == directory.resolve():
        return
    for name in _TRAVELLERS:
        file = find(source, name)
        if file is not None:
            with writing(directory / name) as unfinished:
                shutil.copyfile(file, unfinished)


def complete_model(model: Path, source: str | Path) -> list[str]:
    """Put beside a model what plain Axolotl left out when it tuned it with a tokenizer of ours.

    That is what `complete` puts there, the tokens that were added since, for llama.cpp's converter, and the tokenizer's end
    of a sequence among those at which the model stops. Weights are not touched.

    Args:
        model: directory of the tuned model, with its tokenizer.
        source: directory or name of the tokenizer of ours that it was tuned with.

    Returns a sentence for each thing that it did. Raises EEVEError for other directories than these.
    """
    from transformers import AutoTokenizer

    if find(source, TOKENIZER_MANIFEST) is None:
        raise EEVEError(
            f"{source} is no tokenizer of ours (no {TOKENIZER_MANIFEST}); give the one that the stages used"
        )
    for name in (CONFIG, "config.json"):
        if not (model / name).is_file():
            raise EEVEError(
                f"{model} has no {name}; give the directory of the tuned model, merged if it had an adapter"
            )
    own, tuned = AutoTokenizer.from_pretrained(source).get_vocab(), AutoTokenizer.from_pretrained(model)
    if other := [token for token, i in own.items() if tuned.convert_ids_to_tokens(i) != token]:
        raise EEVEError(
            f"{model} was not tuned with {source}: it has another token than {other[0]} at id {own[other[0]]}"
        )
    for name in _TRAVELLERS:
        theirs, file = model / name, find(source, name)
        if file is not None and theirs.exists() and theirs.read_bytes() != file.read_bytes():
            raise EEVEError(
                f"{theirs} is not {source}'s; move it elsewhere, so that nothing of yours is replaced"
            )
    tuned.name_or_path = str(source)
    complete(tuned, model, read_config(source))
    done = [f"{CONFIG} as in {source}, with what was added since"]
    done += [f"{name} from {source}" for name in _TRAVELLERS if (model / name).is_file()]
    highest = max(own.values())
    in_order = sorted(tuned.get_vocab().items(), key=lambda each: each[1])
    later = {token: i for token, i in in_order if i > highest}
    if later and (model / SENTENCEPIECE_MODEL).is_file():
        write_json(model / ADDED, later)
        done.append(f"{ADDED} with {', '.join(later)}")
    return done + _stop_at_the_end(model, tuned)


def _stop_at_the_end(model: Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Let generation stop at the tokenizer's end of a sequence: Axolotl leaves the one that the base had."""
    path, end = model / GENERATION, tokenizer.eos_token_id
    if not path.is_file() or end is None:
        return []
    generation = json.loads(path.read_text(encoding="utf-8"))
    given = generation.get("eos_token_id")
    ends = given if isinstance(given, list) else [] if given is None else [given]
    if end in ends:
        return []
    write_json(path, {**generation, "eos_token_id": [*ends, end]})
    return [f"{GENERATION} stops at {tokenizer.eos_token} too"]


def travel_with_tokenizers() -> None:
    """From here on, in this process, a tokenizer of ours is saved with all of its files, whoever saves it."""
    from transformers import PreTrainedTokenizerBase

    save = PreTrainedTokenizerBase.save_pretrained
    if getattr(save, "completes", False):
        return

    @functools.wraps(save)
    def save_with_all_files(self, save_directory, *args, **kwargs):
        source = self.name_or_path
        # One process writes: where several save to one place, weights are written by the first too.
        to_do = source and os.environ.get("RANK", "0") == "0" and not kwargs.get("filename_prefix")
        own = read_config(source) if to_do and find(source, TOKENIZER_MANIFEST) else None
        saved = save(self, save_directory, *args, **kwargs)
        if own is not None and saved:
            complete(self, Path(save_directory), own)
        return saved

    save_with_all_files.completes = True  # type: ignore[attr-defined]
    PreTrainedTokenizerBase.save_pretrained = save_with_all_files  # type: ignore[method-assign]
