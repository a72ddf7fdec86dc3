"""`axolotl eeve start`: new output rows as likely as their tokens are in text, before any training.

A new token's output row is made of its first subword's, so it begins with that subword's logit. But thousands of tokens
share a first subword, and each of them is rarer than it. Here the logit is lowered by how seldom the subword begins just
this token, counted in text, with one constant for all tokens, chosen on documents that were not counted. A head without a
bias gets one along the direction whose product with every state is near 1. This rule is ours; it was not published.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from eeve_axolotl import embeddings, inputs, rows
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.inspection import load, within_context
from eeve_axolotl.evaluation.scoring import score, stream_texts, windows_of, with_bos
from eeve_axolotl.files import LEFT_BY_A_KILL, check_writable, replacing, write_json
from eeve_axolotl.records import MARK, RECORD, START, is_ours
from eeve_axolotl.tokenizer_files import travel_with_tokenizers
from eeve_axolotl.version import __version__
from eeve_axolotl.vocabulary import id_count, manifest_base_size, resolve, tokenizer_beside

SHIFTS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)  # nats
HELD_OUT = 5  # every so many documents of each text are for choosing, and are not counted
RIDGE = 1e-3  # of the mean of the states' second moments
MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere, Falcon-H1, Muse
DIVISOR = "logits_scaling"  # Granite
MULTIPLIED_BY_DIVISOR = ("hyperclovax",)  # model types that have Granite's key and multiply by it


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` found: bits per byte of the documents that it chose on, before and after."""

    before: float
    after: float
    shift: float | None
    """Nats added to every new token's logit; None where no constant was better than the start without it."""
    tokens: int
    """Tokens of text that were counted."""
    seen: int
    """New tokens among them, each counted once."""
    new: int
    """New tokens in all."""


@dataclass
class States:
    """What the text's tokens and the head's inputs say, added up; memory does not grow with the text."""

    counts: torch.Tensor  # (ids,): how often each token came
    moments: torch.Tensor  # (width, width): sum of products
    sums: torch.Tensor  # (width,)
    number: int = 0

    @classmethod
    def none(cls, ids: int, width: int) -> States:
        """Before any text."""
        return cls(torch.zeros(ids), torch.zeros(width, width), torch.zeros(width))

    def add(self, hidden: torch.Tensor, targets: torch.Tensor) -> None:
        """Add the head's inputs (tokens, width) and the tokens (tokens,) that follow them."""
        self.counts += torch.bincount(targets, minlength=len(self.counts))
        self.moments += hidden.T @ hidden
        self.sums += hidden.sum(0)
        self.number += len(targets)

    def direction(self) -> torch.Tensor:
        """(width,): its product with a state is near 1, by ridge regression."""
        moments = self.moments / self.number
        ridge = RIDGE * moments.trace() / len(moments) * torch.eye(len(moments))
        return torch.linalg.solve(moments + ridge, self.sums / self.number)


@dataclass
class NewRows:
    """The output rows of new tokens that can be calibrated: their ids, and those of their first subwords."""

    ids: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)

    def log_shares(self, counts: torch.Tensor, base_size: int) -> torch.Tensor:
        """(rows,): log of how often a first subword begins just this token; a token unseen counts as half a one."""
        own = counts[self.ids]
        begins = counts[:base_size].clone()
        begins.index_add_(0, torch.tensor(self.firsts), own)
        return torch.log(own.clamp(min=0.5) / begins[self.firsts].clamp(min=1.0))


def start(
    base: str,
    tokenizer: str,
    texts: Sequence[str],
    output: str | Path,
    *,
    tokens: int = 100_000,
    max_length: int = 512,
    untie: bool = False,
    dtype: str = "auto",
) -> Calibrated:
    """Write `base`, extended by `tokenizer`'s rows, its output rows calibrated, to `output`, for stage 1 to start from.

    Args:
        base: directory or hub name of the base model, without the new rows.
        tokenizer: of ours, extended.
        texts: files or directories of text as the stages will read it, the base's languages included.
        tokens: how many to count, at most; of a document to choose on, as many characters.
        max_length: tokens of a forward pass.
        untie: give a model whose embeddings are one matrix a second.

    Raises EEVEError, before anything is written, for a model or a place that cannot be used.
    """
    output = Path(output)
    _check_output(output, base, tokenizer)
    base_size = manifest_base_size(tokenizer)
    if base_size is None:
        raise EEVEError(f"{tokenizer} is no tokenizer of ours; build it with `axolotl eeve tokenizer`")
    travel_with_tokenizers()
    model, words = load(base, tokenizer, dtype)
    size = id_count(words)
    _check_extends(base, tokenizer, words, base_size)
    if model.get_input_embeddings().weight is model.get_output_embeddings().weight:
        if not untie:
            raise EEVEError(
                f"{base} has one matrix for both embeddings, so an output row cannot start on its own; give --untie"
            )
        rows.untie(model)
    # Once more: `load` leaves the rows of a padded vocabulary, and a head untied since then has the input rows' start.
    embeddings.initialise(model, words, base_size, base_size)
    setattr(model.config, MARK, {"base_vocab_size": base_size, "vocab_size": size})
    found = calibrate(model, words, base_size, documents(texts), tokens=tokens, max_length=max_length)
    with replacing(output, is_ours) as directory:
        model.save_pretrained(directory)
        words.save_pretrained(directory)
        of = {"base": base, "tokenizer": tokenizer, "texts": {each: inputs.of_path(each) for each in texts}}
        write_json(directory / START, {**of, **asdict(found), "eeve_axolotl": __version__})
    return found


def told(found: Calibrated, output: str | Path) -> str:
    """What was done, for a terminal."""
    if found.shift is None:
        what = "no constant made the text likelier, so output rows start as a stage's own would"
    else:
        what = f"output rows start as their tokens' shares plus {found.shift:g} nats"
    bits = f"held-out documents {found.before:.3f} bits per byte before, {found.after:.3f} after"
    counted = f"{found.seen:,} of {found.new:,} new tokens in {found.tokens:,} tokens of text"
    return f"{what}; {bits}; {counted}\n{output}: give it to stage 1 as base_model"


def calibrate(
    model, tokenizer, base_size: int, texts: Iterator[Sequence[str]], *, tokens: int, max_length: int
) -> Calibrated:
    """Set the new output rows of an extended `model` whose new rows have their start. Rows below `base_size` stay.

    Args:
        texts: a document of each text at a time (see `documents`).

    Raises EEVEError where there is too little text, or the model makes no sense of it.
    """
    model.eval()
    max_length = within_context(model, max_length)
    size, head = id_count(tokenizer), model.get_output_embeddings()
    states = States.none(size, head.weight.shape[1])
    held = read(model, tokenizer, texts, states, tokens, max_length)
    if not (held and states.number):
        raise EEVEError(f"there is too little text to choose on; give {HELD_OUT} documents and more of each")
    new, bits = new_rows(tokenizer, base_size), functools.partial(_bits, model, tokenizer, held, max_length)
    weight, bias = head.weight.data, getattr(head, "bias", None)
    as_it_was = weight[new.ids].clone(), None if bias is None else bias.data[new.ids].clone()
    shares = new.log_shares(states.counts, base_size)
    towards = states.direction() / logit_scale(model.config)
    before, found = bits(), {}
    if not math.isfinite(before):
        raise EEVEError(f"the model gives text {before} bits per byte; it is broken: take another copy")
    for shift in SHIFTS:
        _set(weight, bias, new, shares + shift, towards)
        found[shift] = bits()
    best = min(found, key=found.__getitem__)
    better = found[best] < before
    if better:
        _set(weight, bias, new, shares + best, towards)
    else:
        weight[new.ids] = as_it_was[0]
        if bias is not None:
            bias.data[new.ids] = as_it_was[1]
    seen = int((states.counts[new.ids] > 0).sum())
    after, chosen = (found[best], best) if better else (before, None)
    return Calibrated(before, after, chosen, states.number, seen, len(new.ids))


def documents(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """A document of each text at a time, empty ones left out, until the first text has no more."""
    return zip(*(filter(None, stream_texts(each)) for each in texts), strict=False)


def new_rows(tokenizer, base_size: int) -> NewRows:
    """The new tokens that have a first subword."""
    found = NewRows()
    for number, ids in enumerate(embeddings.subwords(tokenizer, base_size)):
        if ids:
            found.ids.append(base_size + number)
            found.firsts.append(ids[0])
    return found


def logit_scale(config) -> float:
    """What the model multiplies its head's products by."""
    config = config.get_text_config()
    factor = math.prod(float(getattr(config, name, None) or 1.0) for name in MULTIPLIERS)
    divisor = float(getattr(config, DIVISOR, None) or 1.0)
    return factor * divisor if config.model_type in MULTIPLIED_BY_DIVISOR else factor / divisor


@torch.no_grad()
def read(
    model, tokenizer, texts: Iterator[Sequence[str]], states: States, tokens: int, max_length: int
) -> list[str]:
    """Add the text's states to `states` until there are `tokens` of them; the documents that were held out."""
    held: list[str] = []
    for number, some in enumerate(texts):
        if number % HELD_OUT == HELD_OUT - 1:
            held.extend(text[:tokens] for text in some)
        else:
            for place, text in enumerate(some):  # a long document leaves the other texts their part
                room = (tokens - states.number) // (len(some) - place)
                _read_document(model, with_bos(tokenizer, text)[: room + 1], states, max_length)
        if states.number >= tokens and held:
            break
    return held


def _read_document(model, ids: list[int], states: States, max_length: int) -> None:
    for window in windows_of(ids, max_length):
        if len(window) > 1:
            states.add(_inputs_of_head(model, window)[:-1], torch.tensor(window[1:]))


class _ReachedError(Exception):
    """The head was called: nothing behind it is of interest."""


def _inputs_of_head(model, window: list[int]) -> torch.Tensor:
    """What the head is given for each token, (tokens, width) in fp32 on the CPU."""
    found: list[torch.Tensor] = []

    def take(_, given):
        found.append(given[0])
        raise _ReachedError

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        model(input_ids=torch.tensor([window], device=model.device), use_cache=False)
    except _ReachedError:
        pass
    finally:
        hook.remove()
    return found[0][0].float().cpu()


def _bits(model, tokenizer, held: list[str], max_length: int) -> float:
    return score(model, tokenizer, held, max_length=max_length).bits_per_byte


def _set(weight: torch.Tensor, bias, new: NewRows, shifts: torch.Tensor, towards: torch.Tensor) -> None:
    """Each row its first subword's, its logit `shifts` (rows,) higher."""
    first = weight[new.firsts].float()
    if bias is not None:
        weight[new.ids] = first.to(weight.dtype)
        bias.data[new.ids] = (bias.data[new.firsts].float() + shifts.to(bias.device)).to(bias.dtype)
        return
    weight[new.ids] = (first + (shifts[:, None] * towards).to(first.device)).to(weight.dtype)


def _check_output(output: Path, base: str, tokenizer: str) -> None:
    """Raise EEVEError if `output` cannot be written, is what is read, or holds what this command did not write."""
    check_writable(output, "--output")
    for given in (base, tokenizer):
        if output.resolve() == Path(given).resolve():
            raise EEVEError(f"--output: {output} is {given}, which is read; choose another")
    if not output.exists():
        return
    there = [
        each for each in output.iterdir() if each.name not in LEFT_BY_A_KILL and each.name != "lost+found"
    ]
    written = [output / START, *(output / name / START for name in LEFT_BY_A_KILL)]
    if there and not any(each.exists() for each in written):
        raise EEVEError(f"--output: {output} holds something that this command did not write; choose another")
    if (output / RECORD).exists():
        raise EEVEError(f"--output: {output} holds a model that a stage has trained since; choose another")


def _check_extends(base: str, tokenizer: str, words, base_size: int) -> None:
    """Raise EEVEError if `words`, of `tokenizer`, do not extend the tokenizer of `base`, as stage 1 would."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    mark = getattr(config, MARK, None) or {}
    if int(mark.get("vocab_size", 0)) > base_size:
        raise EEVEError(f"{base} has rows of new tokens already; give the model that {tokenizer} extends")
    resolve(
        words,
        config.get_text_config().vocab_size,
        needs_new_rows=True,
        manifest=base_size,
        mark=mark or None,
        base_tokenizer=tokenizer_beside(base),
    )
