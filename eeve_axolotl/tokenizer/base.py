"""The base tokenizer: where it comes from, and how tokens and merges are appended to it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError, if_offline
from eeve_axolotl.records import SENTENCEPIECE_MODEL
from eeve_axolotl.tokenizer import tekken
from eeve_axolotl.tokenizer.reloading import as_its_file_says
from eeve_axolotl.tokenizer.spelling import BOUNDARY, byte_level_alphabet, has_pattern, is_byte_level
from eeve_axolotl.tokenizer.words import letter_ranges
from eeve_axolotl.tokenizer_files import find

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""The tokens of single bytes in a SentencePiece vocabulary with byte fallback."""


def load(name: str, scripts: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """The base as a transformers fast tokenizer.

    Args:
        name: a directory, a hub name, a SentencePiece `tokenizer.model` file, Mistral's `tekken.json`, or
            `package:file` for one that an installed package carries among its data
            (`mistral_common:tokenizer.model.v1`).
        scripts: Unicode script names of the letters that it must be able to spell.

    Raises EEVEError if it is not there, or neither a SentencePiece-type BPE with byte fallback nor a
    byte-level BPE with a pre-tokenizer pattern.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerBase
    file = package_file(name) if ":" in name else Path(name)
    try:
        if file.is_file() and tekken.is_tekken(file):
            tokenizer = tekken.load(file)
        elif file.is_file():
            tokenizer = _from_sentencepiece(file)
        else:
            tokenizer = as_its_file_says(name, AutoTokenizer.from_pretrained(name))
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise EEVEError(
            f"base: no tokenizer at {name} ({first}); give a directory, a hub name or a file{if_offline()}"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise EEVEError(f"base: {name} is no fast tokenizer; use a base with a tokenizer.json")
    _check_ids(name, tokenizer.get_vocab())
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    if model["type"] != "BPE":
        raise EEVEError(
            f"base: {name} is a {model['type']} tokenizer; only BPE tokenizers can be extended by merges"
        )
    if is_byte_level(state):
        if not has_pattern(state):
            raise EEVEError(
                f"base: {name} is a byte-level BPE that has no pattern that cuts text into words; use another base"
            )
        _check_bytes(name, byte_level_alphabet(), model["vocab"], scripts)
    elif model.get("byte_fallback") and not model["vocab"].keys().isdisjoint(BYTES):
        _check_bytes(name, {token: byte for byte, token in enumerate(BYTES)}, model["vocab"], scripts)
    else:
        raise EEVEError(
            f"base: {name} has neither byte fallback (Llama-2, Mistral, SOLAR) nor a byte-level alphabet "
            "(Llama-3, Qwen, GPT-2); use such a base"
        )
    return tokenizer


def _check_ids(name: str, vocab: Mapping[str, int]) -> None:
    """Raise EEVEError if two tokens of the base have one id: whatever is appended, one of them is lost."""
    tokens: dict[int, str] = {}
    for token, i in vocab.items():
        other = tokens.setdefault(i, token)
        if other != token:
            raise EEVEError(
                f"base: {name} gives the id {i} to both {other!r} and {token!r} (the library numbers a special token that "
                "the vocabulary of tokenizer.json lacks by its length, ids left out or not); write the special tokens into "
                "its vocabulary with ids of their own"
            )


def _check_bytes(
    name: str, spelled: Mapping[str, int], vocab: Container[str], scripts: Sequence[str]
) -> None:
    """Raise EEVEError if a base cannot spell the letters of `scripts` in bytes.

    It may lack other bytes: SmolLM2's lacks those that UTF-8 never has and some control characters, Gemma's the tab, which
    is a token of its own.

    Args:
        spelled: the byte that each of the base's tokens for single bytes would stand for.
    """
    codes = (
        code for first, last in letter_ranges(tuple(scripts)) for code in range(ord(first), ord(last) + 1)
    )
    needed = {byte for code in codes for byte in chr(code).encode()}
    needed |= set(b" ") if " " not in vocab and BOUNDARY not in vocab else set()
    missing = sorted(byte for token, byte in spelled.items() if token not in vocab and byte in needed)
    if missing:
        shown = ", ".join(f"{byte:02X}" for byte in missing[:8])
        raise EEVEError(
            f"base: {name} lacks tokens for single bytes that {' and '.join(scripts)} is spelled with ({shown}); use "
            "another base"
        )


def sentencepiece_file(name: str) -> Path | None:
    """The base's SentencePiece model: the file itself, in a directory, or in the hub's cache; None if there is none."""
    file = package_file(name) if ":" in name else Path(name)
    if file.is_file():
        return None if tekken.is_tekken(file) else file
    return find(name, SENTENCEPIECE_MODEL)


def package_file(name: str) -> Path:
    """The file of an installed package that `package:file` names. Raises EEVEError if there is none."""
    package, file = name.split(":", 1)
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise EEVEError(f"base: the package {package} is not installed; install it, or give a directory")
    directory = Path(found.origin).parent
    matches = sorted(directory.rglob(file))
    if not matches:
        raise EEVEError(f"base: the package {package} has no file {file}")
    return matches[0]


def _from_sentencepiece(file: Path) -> PreTrainedTokenizerBase:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec
    from transformers import AutoTokenizer

    try:
        proto = ModelProto.FromString(file.read_bytes())
    except Exception:  # protobuf's own, which only its tree names
        raise EEVEError(
            f"base: {file} is no SentencePiece model; give a tokenizer.model, or a directory"
        ) from None
    if proto.trainer_spec.model_type != TrainerSpec.BPE:
        kind = TrainerSpec.ModelType.Name(proto.trainer_spec.model_type)
        raise EEVEError(f"base: {file} is a {kind} model; only BPE tokenizers can be extended by merges")
    if {piece.piece for piece in proto.pieces}.isdisjoint(BYTES):
        raise EEVEError(
            f"base: {file} has no byte fallback, so it cannot spell letters that it lacks; use a base that has it "
            "(Llama-2, Mistral, SOLAR)"
        )
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
    }
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(file, Path(directory) / SENTENCEPIECE_MODEL)
        (Path(directory) / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return AutoTokenizer.from_pretrained(directory)


def identity(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 over the tokens in id order and the merges: what makes a base this base."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    return hashlib.sha256(json.dumps([tokens, model["merges"]], ensure_ascii=False).encode()).hexdigest()


def splits(token: str, known: Container[str]) -> list[tuple[str, str]]:
    """All ways to make `token` from two `known` tokens."""
    return [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in known and token[i:] in known]


def extended_state(state: dict, new_tokens: list[str], first_id: int) -> dict:
    """A tokenizer's JSON `state` with `new_tokens` appended to vocabulary and merges, ids from `first_id` in order.

    Every split of a new token into two known ones becomes a merge, after all base merges and in the order
    of the tokens: text that holds no new token comes out as before, and a token stays within reach when
    one of its parts is not in the vocabulary but another split is (SentencePiece's BPE works this way).
    """
    model = state["model"]
    # Special tokens outside the model's vocabulary (Llama-3, Qwen) are numbered after it: keep their ids.
    special = {token["content"]: token["id"] for token in state["added_tokens"]}
    new = {token: first_id + n for n, token in enumerate(new_tokens)}
    vocab = {**special, **model["vocab"], **new}
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    merges += [list(pair) for token in new_tokens for pair in splits(token, vocab)]
    return {**state, "model": {**model, "vocab": vocab, "merges": merges}}


def model_of(state: dict) -> Tokenizer:
    """The bare BPE model of a tokenizer's JSON: it encodes words in the vocabulary's own alphabet."""
    bare = {**state, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None}
    return Tokenizer.from_str(json.dumps(bare))


def tokens_of_words(
    model: Tokenizer, batches: Iterable[tuple[list[str], list[int]]]
) -> Iterator[tuple[list[str], int]]:
    """Yields each word's tokens under a bare `model`, and its count, from `batches` of words and counts."""
    tokens = {i: token for token, i in model.get_vocab().items()}
    for words, counts in batches:
        encodings = model.encode_batch_fast(words, add_special_tokens=False)
        for encoding, count in zip(encodings, counts, strict=True):
            yield [tokens[i] for i in encoding.ids], count
