"""The starts that are tried for a model's new output rows, and which of them it keeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from eeve_axolotl import embeddings
from eeve_axolotl.calibration import regression
from eeve_axolotl.calibration.regression import Fit, Head, Level, Logits
from eeve_axolotl.calibration.states import HELD_OUT, States, check_logits, read, read_document
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.evaluation.inspection import within_context
from eeve_axolotl.evaluation.scoring import score, with_bos
from eeve_axolotl.vocabulary import id_count

EVERYWHERE = (-2.0, 0.0)  # nats on every new token's logit
WHERE_NEW = (0.0, 2.0, 4.0, 6.0, 8.0)  # nats more where new tokens follow
# Tokens of text without a difference, to which a correction is drawn: that of all rows, of those with a first subword or
# a first character in common, and of each row.
ALL, FIRST_SUBWORD, FIRST_CHARACTER, OWN = 100.0, 300.0, 300.0, 300.0
MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere, Falcon-H1, Muse
DIVISOR = "logits_scaling"  # Granite
MULTIPLIED_BY_DIVISOR = ("hyperclovax",)  # model types that have Granite's key and multiply by it
# Gemma 2, RecurrentGemma, xLSTM
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
WITHOUT_EFFECT = ("mpt",)  # model types of which transformers reads none of these keys


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` found: bits per byte of the documents that it chose on, before and after."""

    before: float
    after: float
    rule: str | None
    """How output rows start: "fitted", by "shares" alone, or None where neither was better than the start without it."""
    tokens: int
    """Tokens of text that rows were fitted to."""
    held: int
    """Tokens of the documents that it chose on."""
    seen: int
    """New tokens among them, each counted once."""
    new: int
    """New tokens in all."""
    passes: int
    """Passes of the fit over the states of the text."""


@dataclass
class NewRows:
    """The output rows of new tokens that can be calibrated: ids, first subwords, and subwords of the first character."""

    ids: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    characters: list[tuple[int, ...]] = field(default_factory=list)

    def log_shares(self, counts: torch.Tensor, base_size: int) -> torch.Tensor:
        """(rows,): log of how often a first subword begins just this token; a token unseen counts as half a one."""
        own = counts[self.ids]
        begins = counts[:base_size].clone()
        begins.index_add_(0, torch.tensor(self.firsts), own)
        return torch.log(own.clamp(min=0.5) / begins[self.firsts].clamp(min=1.0))

    def levels(self) -> list[Level]:
        """What rows share, from the most to the least."""
        groups: tuple[list, ...] = ([0] * len(self.ids), self.firsts, self.characters, self.ids)
        priors = (ALL, FIRST_SUBWORD, FIRST_CHARACTER, OWN)
        return [Level(_numbered(group), prior) for group, prior in zip(groups, priors, strict=True)]


def new_rows(tokenizer, base_size: int) -> NewRows:
    """The new tokens that have a first subword."""
    found = NewRows()
    spell = embeddings.speller(embeddings.truncated(tokenizer, base_size))
    for number, ids in enumerate(embeddings.subwords(tokenizer, base_size)):
        if ids:
            found.ids.append(base_size + number)
            found.firsts.append(ids[0])
            found.characters.append(tuple(embeddings.first_character(ids, spell)))
    return found


def logits_of(config) -> Logits:
    """What the model does to its head's products."""
    config = config.get_text_config()
    if config.model_type in WITHOUT_EFFECT:
        return Logits()
    factor = math.prod(float(getattr(config, name, None) or 1.0) for name in MULTIPLIERS)
    divisor = float(getattr(config, DIVISOR, None) or 1.0)
    multiplied = config.model_type in MULTIPLIED_BY_DIVISOR
    caps = (getattr(config, name, None) for name in CAPS)
    return Logits(factor * divisor if multiplied else factor / divisor, next(filter(None, caps), None))


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
    head, ids, logits = model.get_output_embeddings(), id_count(tokenizer), logits_of(model.config)
    check_logits(model, logits)
    states, apart = (States.none(ids, head.weight.shape[1]) for _ in range(2))
    held = read(model, tokenizer, texts, states, tokens, max_length)
    if not (held and states.number):
        raise EEVEError(f"there is too little text to choose on; give {HELD_OUT} documents and more of each")
    new = new_rows(tokenizer, base_size)

    def bits() -> float:
        return score(model, tokenizer, held, max_length=max_length).bits_per_byte

    before = bits()
    if not math.isfinite(before):
        raise EEVEError(f"the model gives text {before} bits per byte; it is broken: take another copy")
    _check_text(states, new)
    for text in held:
        read_document(model, with_bos(tokenizer, text)[: tokens - apart.number + 1], apart, max_length)
    weight, bias = head.weight.data, None if getattr(head, "bias", None) is None else head.bias.data
    kept = [None if each is None else each[new.ids].clone() for each in (weight, bias)]
    rule: str | None
    with torch.autocast(weight.device.type, enabled=False):
        within = Head(torch.tensor(new.ids), weight, bias, logits)
        rule, passes = _set_best(within, new, states, apart)
    after = bits()
    if not after < before:
        after, rule = before, None
        for each, rows in zip((weight, bias), kept, strict=True):
            if each is not None:
                each[new.ids] = rows
    seen = int((states.counts[new.ids] > 0).sum())
    return Calibrated(before, after, rule, states.number, apart.number, seen, len(new.ids), passes)


def _check_text(states: States, new: NewRows) -> None:
    """Raise EEVEError where rows cannot be fitted to what was read."""
    moments = states.moments
    if not (torch.isfinite(moments).all() and moments.trace() > 0):
        raise EEVEError(
            "what the model's layers make of the text is not finite, or 0 everywhere; give --dtype float32 or, if that "
            "does not help, another copy of the model"
        )
    if not states.counts[new.ids].any():
        raise EEVEError(
            f"none of {len(new.ids):,} new tokens comes in the {states.number:,} tokens of text that were read; give text "
            "of the language that the tokenizer was extended for, or more of it"
        )


def _set_best(head: Head, new: NewRows, states: States, apart: States) -> tuple[str, int]:
    """Set the rows with which the text `apart` is likeliest: the rule that they are of, and passes over `states`."""
    device = head.weight.device
    text, held = (head.known(*each.whole()) for each in (states, apart))
    firsts = head.weight[new.firsts].float()
    shares = new.log_shares(states.counts, min(new.ids)).to(device)
    one, gate = states.one().to(device), states.gate(head.new).to(device)
    first_bias = None if head.bias is None else head.bias[new.firsts].float()
    starts = []
    for everywhere, where_new in itertools.product(EVERYWHERE, WHERE_NEW):
        level = (shares + everywhere) / head.logits.scale
        rows, bias = firsts + where_new / head.logits.scale * gate, None
        if first_bias is None:
            rows = rows + level[:, None] * one
        else:
            bias = first_bias + level
        starts.append((regression.nats(held, rows, bias, head.logits, None), rows, bias))
    _, rows, bias = min(starts, key=lambda each: each[0])
    fit = Fit(text, rows, bias, head.logits, new.levels(), states.second_moments())
    best, _ = regression.fitted(fit, held)
    head.weight[new.ids] = best.to(head.weight.dtype)
    if head.bias is not None and bias is not None:
        head.bias[new.ids] = bias.to(head.bias.dtype)
    return "shares" if best is rows else "fitted", fit.evaluations


def _numbered(group: list) -> torch.Tensor:
    """(rows,): equal ones the same number, from 0 on."""
    numbers: dict = {}
    return torch.tensor([numbers.setdefault(each, len(numbers)) for each in group])
