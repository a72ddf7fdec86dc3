"""The base is what its own `tokenizer.json` says, and what is written says the same when it is loaded again.

transformers builds some classes of tokenizers anew from their vocabulary and merges, by rules of the class, and so reads
a `tokenizer.json` of another kind wrongly (GPT-4o's under the name GPT2Tokenizer, DeepSeek's under LlamaTokenizer). An
extended tokenizer must not inherit that, nor may what is lost when it is saved change a text. So both are tried, on texts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import read_json, write_json
from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer.words import WordSplitter
from eeve_axolotl.tokenizer_files import CONFIG, FAST, config_of, find, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

LOG = logger("tokenizer")
TEXTS = (
    "Hello world", "The quick brown fox jumps over the lazy dog, doesn't it? I'LL SAY: they've 12345.67 reasons (3 of 10).",
    " one space before", "  two spaces before", "one space after ", "two  spaces,   three,    four", "   ", "\t\ttabs\tin\t",
    "\n", "\n\n\nlines\n\n and\r\nlines \n", "def f(x, *, y=0):\n    return {\"a\": [x ** 2, y]}  # a comment\n",
    "for (int i = 0; i < n; ++i) {\n\ta[i] += b->c;\n}\n", "https://example.org/a_b?c=d&e=%20#f",
    "$100, 50 %, №5, 1/2, a@b.c", "camelCase snake_case SCREAMING_CASE x86_64",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<s>[INST] Hi [/INST] Hello </s><s>[INST] And?[/INST]",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "### Instruction:\nWrite.\n\n### Response:\n",
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "Être naïf, c'est ça", "e\u0301 a\u0308 \ufb01",
    "Größe und Straße", "Ελληνικά, με τόνους", "Русский текст", "עברית", "مرحبا بالعالم", "हिन्दी में एक वाक्य",
    "ภาษาไทย", "中文文本,没有空格。", "日本語の文章です。カタカナも", "한국어 문장입니다", "Tiếng Việt",
    "🙂 👩\u200d👩\u200d👧 🇰🇷", "▁a▁ ▁b", "Ġa", "\u00a0\u3000\u200b", "\x01\x7f", "\U000f0000\ufffd", "<0x41>",
)  # fmt: skip
"""Of everyday text, code, chat markup and scripts; beside them each special token of the base is tried in a text."""
_SPECIAL = 1_000  # special tokens that are tried; Gemma has 6,415

Ids = Callable[[str], list[list[int]]]
"""A text's ids without and with what a model's input begins and ends with."""


def texts_for(tokenizer: Tokenizer) -> Iterator[str]:
    """The texts on which readings of `tokenizer` are compared."""
    yield from TEXTS
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    for content in special[:_SPECIAL]:
        yield f"{content}Hi {content} there{content}\n{content}  "


def difference(one: Ids, other: Ids, texts: Iterable[str]) -> str | None:
    """The first text whose ids differ; None if none do."""
    return next((text for text in texts if one(text) != other(text)), None)


def of_library(tokenizer: Tokenizer) -> Ids:
    """How the tokenizers library reads a tokenizer: whole texts, as transformers does unless told otherwise."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: [tokenizer.encode(text, add_special_tokens=each).ids for each in (False, True)]


def of_transformers(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """How transformers reads a tokenizer."""
    return lambda text: [tokenizer(text, add_special_tokens=each)["input_ids"] for each in (False, True)]


def as_its_file_says(name: str, loaded: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer `name` as its own `tokenizer.json` has it: `loaded` if AutoTokenizer reads it so, else read anew.

    Raises EEVEError if transformers cannot be made to read it so.
    """
    from transformers import PreTrainedTokenizerFast

    file = find(name, "tokenizer.json")
    if file is None:
        return loaded
    own = _from_file(file)
    texts = list(texts_for(own))
    changed = _misread(own, loaded, texts)
    if changed is None:
        return loaded
    anew = PreTrainedTokenizerFast.from_pretrained(name)
    if (still := _misread(own, anew, texts)) is not None:
        raise EEVEError(
            f"base: transformers reads {name} otherwise than its tokenizer.json says ({still!r} becomes other tokens); "
            "give a directory whose tokenizer_config.json and special_tokens_map.json fit its tokenizer.json"
        )
    LOG.warning(
        "AutoTokenizer, with %s, reads the base otherwise than its own tokenizer.json says (%r becomes other tokens); the "
        "extended tokenizer follows the file and is written as %s, which reads it as it is",
        type(loaded).__name__, changed, FAST,
    )  # fmt: skip
    return anew


def _misread(own: Tokenizer, loaded: PreTrainedTokenizerBase, texts: Sequence[str]) -> str | None:
    """The first of the file's tokens that transformers gives another id, or the first text that it cuts otherwise."""
    vocab = loaded.get_vocab()
    moved = next((token for token, i in own.get_vocab().items() if vocab.get(token) != i), None)
    return moved if moved is not None else difference(of_library(own), of_transformers(loaded), texts)


def _from_file(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise EEVEError(f"{file} is no tokenizer ({error}); copy or build it again") from None


def write(base: PreTrainedTokenizerFast, name: str, state: dict, directory: Path) -> None:
    """Write a tokenizer with the JSON `state`, and all that is the base's beside it, into `directory`."""
    base.save_pretrained(directory)
    config = read_json(directory / CONFIG)
    write_json(directory / CONFIG, config_of(base, config, read_config(name)))
    text = json.dumps(state, ensure_ascii=False, indent=1)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")


def check(directory: Path, name: str, base: PreTrainedTokenizerFast, may: Callable[[str], bool]) -> int:
    """Load the tokenizer in `directory` again as others do, and compare it with the base's. Returns how many texts.

    Args:
        name: the base's name; of a model's directory its config.json is put beside the tokenizer too, for where a
            model is, transformers chooses the tokenizer's class by it.
        may: whether a text may become other tokens than before (`may_differ`); it must still be read alike by all.

    Raises EEVEError with the text if one becomes other tokens.
    """
    from transformers import AutoTokenizer

    fast = Tokenizer.from_file(str(directory / "tokenizer.json"))
    texts = list(texts_for(base.backend_tokenizer))
    before, after = of_library(base.backend_tokenizer), of_library(fast)
    readers = {"AutoTokenizer": of_transformers(AutoTokenizer.from_pretrained(directory))}
    model = find(name, "config.json") if Path(name).is_dir() else None
    if model is not None and not (directory / "config.json").exists():
        beside = directory / "config.json"
        beside.write_bytes(model.read_bytes())
        try:
            readers["AutoTokenizer, beside the model's config.json,"] = of_transformers(
                AutoTokenizer.from_pretrained(directory)
            )
        finally:
            beside.unlink()
    for reader, ids in readers.items():
        _stop(
            f"{reader} reads the extended tokenizer otherwise than its tokenizer.json says", ids, after, texts
        )
    same = [text for text in texts if not may(text)]
    _stop("the extended tokenizer makes other tokens than the base", after, before, same)
    decoders = [
        functools.partial(each.decode, skip_special_tokens=False) for each in (base.backend_tokenizer, fast)
    ]
    for text in same:
        one, other = (decode(before(text)[0]) for decode in decoders)
        if one != other:
            raise EEVEError(f"base: the extended tokenizer decodes {one!r} as {other!r}; use another base")
    return len(texts)


def may_differ(
    base: PreTrainedTokenizerFast, splitter: WordSplitter, also_changed: Iterable[str]
) -> Callable[[str], bool]:
    """Whether a text may become other tokens: it has letters of the scripts, or of the ranges in `also_changed`."""
    ranges = []
    for entry in also_changed:
        ends = [int(end.removeprefix("U+"), 16) for end in entry.split("..")]
        ranges.append(range(ends[0], ends[-1] + 1))
    normalizer = base.backend_tokenizer.normalizer

    def may(text: str) -> bool:
        normal = normalizer.normalize_str(text) if normalizer else text
        shared = any(ord(character) in codes for character in text + normal for codes in ranges)
        return shared or splitter.has_script(text) or splitter.has_script(normal)

    return may


def _stop(what: str, one: Ids, other: Ids, texts: Iterable[str]) -> None:
    text = difference(one, other, texts)
    if text is not None:
        raise EEVEError(
            f"{what}: {text!r} becomes {_short(one(text))} and not {_short(other(text))}; nothing was written. Use another "
            "base, or report this"
        )


def _short(ids: Any) -> str:
    text = str(ids[0] if ids else ids)
    return text if len(text) <= 80 else f"{text[:80]} ...]"
