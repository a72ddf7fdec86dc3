"""What the new tokens save, on which text, and whether more of them would: the pages beside a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer.rarity import sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIRECTORY = "report"
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_CHARACTERS = 5_000_000  # of a text that fertility is measured on
_BLUE, _ORANGE, _GREY = "#2a6f97", "#e07a1f", "#8a8a8a"


@dataclass
class Fertility:
    """How one tokenizer spells one text."""

    characters: int = 0
    words: int = 0
    bytes: int = 0
    tokens: int = 0
    byte_tokens: int = 0

    def per_character(self) -> float:
        """Tokens for a character."""
        return self.tokens / max(1, self.characters)

    def per_word(self) -> float:
        """Tokens for a word (what white space separates)."""
        return self.tokens / max(1, self.words)

    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 for a token."""
        return self.bytes / max(1, self.tokens)

    def fallback(self) -> float:
        """The share of tokens that are single bytes."""
        return self.byte_tokens / max(1, self.tokens)


def fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> Fertility:
    """Measure `tokenizer` on `texts`, without special tokens."""
    is_byte = {number for token, number in tokenizer.get_vocab().items() if _BYTE.fullmatch(token)}
    result = Fertility()
    texts = iter(texts)
    while batch := list(islice(texts, 256)):
        for text, encoding in zip(
            batch, tokenizer.encode_batch(batch, add_special_tokens=False), strict=True
        ):
            result.characters += len(text)
            result.words += len(text.split())
            result.bytes += len(text.encode("utf-8", "surrogatepass"))
            result.tokens += len(encoding.ids)
            result.byte_tokens += sum(number in is_byte for number in encoding.ids)
    return result


def sample(shards: Sequence[Shard], characters: int = _CHARACTERS) -> Iterator[str]:
    """The beginning of each file in turn, `characters` in all at most (a document more for each file)."""
    for shard in shards:
        left = characters // len(shards)
        for document in shard.documents():
            yield document.text
            left -= len(document.text)
            if left <= 0:
                break


def write(
    directory: Path,
    base: Tokenizer,
    extended: Tokenizer,
    manifest: dict,
    texts: Mapping[str, Sequence[Shard]],
) -> None:
    """Write report.md and report.png into `directory`.

    Args:
        manifest: of the extended tokenizer; its rounds are the coverage curve.
        texts: what fertility is measured on, by the name that it has in the report.
    """
    directory.mkdir(parents=True, exist_ok=True)
    measured = {
        name: (fertility(base, sample(shards)), fertility(extended, sample(shards)))
        for name, shards in texts.items()
    }
    (directory / "report.md").write_text(_markdown(manifest, measured), encoding="utf-8")
    _plots(directory / "report.png", manifest, measured)


def coverage(manifest: dict) -> list[tuple[int, float]]:
    """(new tokens, tokens saved in the corpus's words as a share of the base's), fewest new tokens first.

    From the rounds of the selection, the best of each number of tokens, and 0 for none.
    """
    before = manifest["tokens_in_words"]["base"]
    best = {0: 0.0}
    for each in manifest["rounds"]:
        best[each["tokens"]] = max(best.get(each["tokens"], 0.0), 1 - each["total"] / before)
    # Rounds that only tried an exchange lie close together.
    budget = manifest["vocab_size"] - manifest["base_vocab_size"]
    return [
        point for point in sorted(best.items()) if abs(point[0] - budget) > budget / 50 or point[0] == budget
    ]


def _markdown(manifest: dict, measured: dict[str, tuple[Fertility, Fertility]]) -> str:
    new = manifest["vocab_size"] - manifest["base_vocab_size"]
    corpus, words = manifest["corpus"], manifest["tokens_in_words"]
    lines = [
        "# What the new tokens save",
        "",
        f"{new:,} tokens on top of {manifest['base_vocab_size']:,}, from {corpus['documents']:,} documents "
        f"({corpus['bytes'] / 1e6:,.1f} MB, {corpus['distinct_words']:,} distinct words) in "
        f"{', '.join(manifest['settings']['script'])}; {len(manifest['rounds'])} rounds; tokens seen less than "
        f"{manifest['min_count']:,} times were dropped. Unreachable: {manifest['unreachable']}. "
        f"{sentence(manifest['rare'], manifest['min_count'])}",
        "",
        "| text | tokenizer | tokens per character | per word | bytes per token | byte fallback | fewer tokens |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, (before, after) in measured.items():
        for which, each in (("base", before), ("extended", after)):
            lines.append(
                f"| {name} | {which} | {each.per_character():.3f} | {each.per_word():.3f} | "
                f"{each.bytes_per_token():.2f} | {each.fallback():.2%} | {before.tokens / max(1, each.tokens):.2f}x |"
            )
    lines += [
        "",
        f"In the words of the whole corpus: {words['base']:,} tokens before, {words['extended']:,} after "
        f"({words['base'] / words['extended']:.2f}x fewer).",
        "",
        "![fertility, coverage and counts](report.png)",
        "",
        "## How many tokens to add",
        "",
        "What the selection passed through on its way: a tokenizer built for another budget is at least about as good.",
        "",
        "| new tokens | saved |",
        "|---:|---:|",
        *(f"| {tokens:,} | {saved:.1%} |" for tokens, saved in coverage(manifest)),
        "",
    ]
    ranked = sorted(manifest["counts"].items(), key=lambda entry: -entry[1])
    for title, some in (("Most useful", ranked[:30]), ("Least useful", ranked[:-31:-1])):
        tokens = ", ".join(f"`{token}` {count:,}" for token, count in some)
        lines += [f"## {title} new tokens", "", f"With how often the corpus has them: {tokens}", ""]
    return "\n".join(lines)


def _plots(path: Path, manifest: dict, measured: dict[str, tuple[Fertility, Fertility]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    names, at = list(measured), range(len(measured))
    bars_of: list[tuple[Axes, str, Callable[[Fertility], float]]] = [
        (axes[0, 0], "Tokens per word", Fertility.per_word),
        (axes[0, 1], "Share of tokens that are bytes, %", lambda each: 100 * each.fallback()),
    ]
    for axis, title, of in bars_of:
        for k, (label, colour) in enumerate((("base", _GREY), ("extended", _BLUE))):
            values = [of(measured[name][k]) for name in names]
            bars = axis.bar([n + 0.4 * (k - 0.5) for n in at], values, 0.38, label=label, color=colour)
            axis.bar_label(bars, fmt="%.2f", fontsize=8)
        axis.set_xticks(list(at), names)
        axis.set_title(title)
        axis.legend(frameon=False)
    curve = coverage(manifest)
    axes[1, 0].plot(*zip(*[(x, 100 * y) for x, y in curve], strict=True), marker="o", ms=3, color=_BLUE)
    budget = manifest["vocab_size"] - manifest["base_vocab_size"]
    axes[1, 0].axvline(budget, color=_ORANGE, lw=1, label=f"{budget:,} chosen")
    axes[1, 0].set(title="Tokens saved in the corpus's words, %", xlabel="new tokens", ylim=(0, None))
    axes[1, 0].legend(frameon=False)
    counts = sorted(manifest["counts"].values(), reverse=True)
    axes[1, 1].loglog(range(1, len(counts) + 1), [max(1, count) for count in counts], color=_BLUE)
    axes[1, 1].set(title="Count of each new token", xlabel="new tokens, most frequent first")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
