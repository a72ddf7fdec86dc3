"""What the stages did: bits per byte, tokens per character, and whether frozen rows are what they were."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from eeve_axolotl import embeddings
from eeve_axolotl.evaluation import read_texts, score
from eeve_axolotl.stages import STAGES, Layers, Rows

INPUTS, OUTPUTS = "model.embed_tokens.weight", "lm_head.weight"
HEADER = ("", "trains", "Korean bits/byte", "English bits/byte", "Korean tokens/char", "frozen rows unchanged")


def write_jsonl(path: Path, records: Iterable[dict]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def show(output: Path) -> None:
    """Evaluate the base model, the extended model before training, and every stage; print the table."""
    logging.disable_progress_bar()
    texts = {language: read_texts(output / f"text/held_out_{language}.jsonl") for language in ("ko", "en")}
    lines = []
    base_tokenizer = AutoTokenizer.from_pretrained(output / "random")
    tokenizer = AutoTokenizer.from_pretrained(output / "tokenizer")

    def add(name: str, trains: str, model, tokenizer, unchanged: str = "") -> None:
        korean, english = (score(model, tokenizer, texts[language]) for language in ("ko", "en"))
        lines.append((
            name, trains, f"{korean.bits_per_byte:.3f}", f"{english.bits_per_byte:.3f}",
            f"{korean.tokens_per_character:.2f}", unchanged,
        ))  # fmt: skip

    add("base", "", _load(output / "base"), base_tokenizer)
    add("extended", "nothing yet", _extended(output / "base", base_tokenizer, tokenizer), tokenizer)
    before = output / "base"
    for number, stage in STAGES.items():
        after = output / f"stage{number}" / ("merged" if stage.internal_layers is Layers.QLORA else "")
        unchanged = frozen_rows_unchanged(before, after, stage, len(base_tokenizer))
        add(f"stage {number}", _trains(stage), _load(after), tokenizer, unchanged)
        before = after
    _print(lines)


def frozen_rows_unchanged(before: Path, after: Path, stage, base_size: int) -> str:
    """Compare the saved weights of two checkpoints bit by bit: "yes", "no", or "-" where no rows are frozen."""
    rows = {INPUTS: stage.input_embeddings, OUTPUTS: stage.output_embeddings}
    same = []
    for name, trained in rows.items():
        if trained is Rows.ALL:
            continue
        one, other = _tensor(before, name), _tensor(after, name)
        # `before` lacks the new rows in stage 1: those it has are compared.
        frozen = base_size if trained is Rows.NEW else len(one)
        same.append(torch.equal(one[:frozen].view(torch.int32), other[:frozen].view(torch.int32)))
    return "-" if not same else "yes" if all(same) else "NO"


def _tensor(directory: Path, name: str) -> torch.Tensor:
    with safe_open(directory / "model.safetensors", "pt") as weights:
        return weights.get_tensor(name).float()


def _load(directory: Path):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def _extended(directory: Path, base_tokenizer, tokenizer):
    model = _load(directory)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings.initialise(model, tokenizer, len(base_tokenizer), len(base_tokenizer))
    return model


def _trains(stage) -> str:
    words = [
        f"{which.value} {name}"
        for which, name in ((stage.input_embeddings, "input"), (stage.output_embeddings, "output"))
        if which is not Rows.NONE
    ]
    if stage.internal_layers is not Layers.FROZEN:
        words.append("layers")
    return " + ".join(words)


def _print(lines: list[tuple]) -> None:
    widths = [max(map(len, column)) for column in zip(HEADER, *lines, strict=True)]
    for line in (HEADER, tuple("-" * width for width in widths), *lines):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    show(Path("outputs/demo"))
