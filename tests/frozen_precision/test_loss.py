"""Stages 1, 3 and 5 of a small model that was trained before: the loss with frozen layers in FP8 beside bf16's."""

from __future__ import annotations

import copy

import pytest
import torch

from eeve_axolotl import rows
from eeve_axolotl.frozen_precision import hold_in_fp8
from eeve_axolotl.stages import STAGES
from tests.conftest import tiny_llama

BASE, NEW, LENGTH = 96, 16, 32
STEPS = 50
WITHIN = 0.005


class Language:
    """A random chain over the base's tokens, in which some pairs are so frequent that they become tokens."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        followers = torch.randint(0, BASE, (BASE, 3), generator=generator)
        self._next = torch.full((BASE, BASE), 0.05 / BASE).scatter_add_(
            1, followers, torch.tensor([[0.55, 0.3, 0.1]]).expand(BASE, 3)
        )
        self.pairs = [(first, int(followers[first, 0])) for first in range(0, BASE, BASE // NEW)]

    def base(self, size: int, seed: int, length: int = LENGTH) -> torch.Tensor:
        """Text in the base's tokens, (size, length)."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, BASE, (size, 1), generator=generator)
        for _ in range(length - 1):
            following = torch.multinomial(self._next[ids[:, -1]], 1, generator=generator)
            ids = torch.cat([ids, following], 1)
        return ids

    def extended(self, size: int, seed: int) -> torch.Tensor:
        """Text with the pairs as tokens of their own, (size, LENGTH)."""
        merged = {pair: BASE + number for number, pair in enumerate(self.pairs)}
        lines = []
        for line in self.base(size, seed, 2 * LENGTH).tolist():
            ids: list[int] = []
            while line:
                token = merged.get(tuple(line[:2]))
                ids.append(line[0] if token is None else token)
                del line[: 1 if token is None else 2]
            lines.append(ids[:LENGTH])
        return torch.tensor(lines)


def step(model, optimizer, ids: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture(scope="module")
def language() -> Language:
    return Language()


@pytest.fixture(scope="module")
def base(language):
    """The base model with new rows at their start, as Axolotl holds it: layers in bf16, embeddings in 32 bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = tiny_llama(BASE, hidden_size=64, num_hidden_layers=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for ids in language.base(16 * 150, seed=0).split(16):
        step(model, optimizer, ids)
    model.resize_token_embeddings(BASE + NEW, mean_resizing=False)
    with torch.no_grad():
        table, head = model.model.embed_tokens.weight, model.lm_head.weight
        for number, (first, second) in enumerate(language.pairs):
            table[BASE + number] = (table[first] + table[second]) / 2
            head[BASE + number] = head[first]
    model.model.layers.to(torch.bfloat16)
    torch.set_num_threads(threads)
    return model


@pytest.fixture(scope="module")
def texts(language) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """What is held out, and a batch for each step."""
    held_out, trained = language.extended(200 + 16 * STEPS, seed=10_000).split([200, 16 * STEPS])
    return held_out, trained.split(16)


def loss(model, ids: torch.Tensor) -> float:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return float(model.eval()(input_ids=ids, labels=ids).loss)


@pytest.mark.parametrize("stage", [1, 3, 5])
def test_after_fifty_steps_the_loss_is_bf16s_within_half_a_percent(stage, base, texts):
    held_out, data = texts
    before, after = {}, {}
    for way in ("bf16", "fp8"):
        model = copy.deepcopy(base)
        frozen = rows.freeze(model, rows.row_mask(model, STAGES[stage], BASE))
        if way == "fp8":
            trunk = hold_in_fp8(model)
            assert len(trunk.modules) == 2 * 7
        optimizer = torch.optim.AdamW(list(frozen.trained_parameters().values()), lr=5e-3)
        before[way] = loss(model, held_out)
        model.train()
        for ids in data:
            step(model, optimizer, ids)
        after[way] = loss(model, held_out)
    print(f"stage {stage}: {before} before, {after} after, fp8 {after['fp8'] / after['bf16'] - 1:+.3%}")
    assert after["fp8"] != after["bf16"]
    assert after["fp8"] == pytest.approx(after["bf16"], rel=WITHIN)
    # There was something to learn, many times what the two may differ by, and both have learned it.
    for way in after:
        assert before[way] - after[way] > 10 * WITHIN * after[way]
