"""`axolotl eeve tokens`: how tokenizers cut a text, token by token and in figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import CONFIG, TOKENIZER_FILE, TOKENIZER_MANIFEST, holds_a_model, read
from eeve_axolotl.tokenizer import base as bases
from eeve_axolotl.tokenizer.spelling import spelling_of

_SHOWN = 2_000  # characters of a text that are shown token by token; all of it is counted
_STYLES = {
    "new": ("black on green", "black on bright_green"),
    "base": ("black on white", "black on bright_white"),
}
_BYTE_STYLES = ("black on red", "black on bright_red")


@dataclass(frozen=True)
class Piece:
    """One token of a text."""

    text: str
    """As people read it: ▁ for a space, ↵ for a line's end, bytes that are no whole character as <0xED>."""

    is_new: bool
    """Whether the tokenizer's manifest counts it among the new tokens."""

    is_bytes: bool
    """Whether it is bytes that are no whole character."""


class ShownTokenizer:
    """A tokenizer, and which of its tokens are new."""

    def __init__(self, name: str, shown_as: str | None = None):
        """
        Args:
            name: a directory with a tokenizer.json of any kind, or whatever a tokenizer YAML takes as `base`.

            shown_as: what to call it, if not by its name.

        Raises EEVEError if it is not there.
        """
        self.name = shown_as or name
        directory = Path(name)
        file, manifest = directory / "tokenizer.json", directory / TOKENIZER_MANIFEST
        if file.is_file():
            try:
                self.tokenizer = Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises Exception itself
                raise EEVEError(f"{file} is no tokenizer ({error}); copy or build it again") from None
        else:
            self.tokenizer = bases.load(name).backend_tokenizer
        state = json.loads(self.tokenizer.to_str())
        self._added = {token["id"]: token["content"] for token in state["added_tokens"]}
        self._read = spelling_of(state).read
        self.base: str | None = None
        self._new = range(0)
        if record := read(manifest, TOKENIZER_FILE):
            self.base = record.get("base")
            self._new = range(
                record["base_vocab_size"], record["base_vocab_size"] + len(record.get("counts", ()))
            )

    def pieces(self, text: str) -> list[Piece]:
        """The tokens of `text` in order, without those that a model's input begins and ends with."""
        pieces = []
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        for number, token in zip(encoding.ids, encoding.tokens, strict=True):
            read = self._added.get(number) or self._read(token)
            is_bytes = number not in self._added and "<0x" in read and read.endswith(">")
            read = read.replace("\n", "↵").replace("\t", "⇥").replace(" ", "▁")
            pieces.append(Piece(read, number in self._new, is_bytes))
        return pieces


def opened(names: Sequence[str]) -> list[ShownTokenizer]:
    """The tokenizers to compare; of one alone that was extended its base too, first, where that can be found.

    Raises EEVEError if one is not there, or none is given and there is not exactly one of ours at hand.
    """
    tokenizers = [ShownTokenizer(name) for name in names or [_at_hand()]]
    if len(tokenizers) == 1 and (base := _base_at_hand(tokenizers[0])) is not None:
        tokenizers.insert(0, ShownTokenizer(base, tokenizers[0].base))
    return tokenizers


def _base_at_hand(tokenizer: ShownTokenizer) -> str | None:
    """Where the base of an extended tokenizer is, without a download; None if it is not on this machine."""
    base = tokenizer.base
    if base is None or ":" in base:
        return base
    # A relative path was written where the tokenizer was built, which is often the directory that it lies in.
    for place in (Path(), *Path(tokenizer.name).resolve().parents[:2]):
        if (place / base).exists():
            return str(place / base)
    cached = try_to_load_from_cache(base, "tokenizer.json") if base.count("/") < 2 else None
    return base if isinstance(cached, str) else None


def _at_hand() -> str:
    """The one tokenizer of ours in the working directory, or in one or two directories below it; no model's copy of it."""
    places = {path.parent for depth in ("", "*/", "*/*/") for path in Path().glob(depth + TOKENIZER_MANIFEST)}
    found = sorted(place for place in places if not (holds_a_model(place) or (place / CONFIG).is_file()))
    if len(found) != 1:
        which = f"there are {', '.join(map(str, found))}" if found else "there is none of ours here"
        raise EEVEError(f"which tokenizer? {which}; give its directory before the text")
    return str(found[0])


def show(tokenizers: Sequence[ShownTokenizer], text: str, console: Console) -> None:
    """Print how each tokenizer cuts `text`, and the figures of all side by side."""
    pieces = [each.pieces(text) for each in tokenizers]
    for each in tokenizers:
        console.print(Text(each.name, style="bold"))
        console.print(_coloured(each.pieces(text[:_SHOWN]), console))
        console.print()
    if len(text) > _SHOWN:
        console.print(f"(the first {_SHOWN:,} of {len(text):,} characters; the figures are of all)")
    console.print(_figures(tokenizers, pieces, text))


def _coloured(pieces: Iterable[Piece], console: Console) -> Text:
    """Tokens side by side in two shades, or with | between them where there is no colour."""
    line = Text()
    for n, piece in enumerate(pieces):
        if console.color_system is None:
            line.append(("|" if n else "") + piece.text)
        else:
            styles = _BYTE_STYLES if piece.is_bytes else _STYLES["new" if piece.is_new else "base"]
            line.append(piece.text, style=styles[n % 2])
    return line


def _figures(tokenizers: Sequence[ShownTokenizer], pieces: Sequence[Sequence[Piece]], text: str) -> Table:
    """A row for each tokenizer; the first is what the others are compared with."""
    table = Table(box=None, pad_edge=False)
    table.add_column("tokenizer", overflow="fold")
    for heading in ("tokens", "per character", "new", "bytes", "fewer"):
        table.add_column(heading, justify="right")
    first = len(pieces[0])
    for each, found in zip(tokenizers, pieces, strict=True):
        table.add_row(
            each.name,
            f"{len(found):,}",
            f"{len(found) / max(1, len(text)):.3f}",
            f"{sum(piece.is_new for piece in found):,}",
            f"{sum(piece.is_bytes for piece in found):,}",
            f"{first / max(1, len(found)):.2f}x",
        )
    return table
