"""Logits that are not made: what is done to each by itself is noted, anything else is done to the logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eeve_axolotl.losses.deferred import DeferredLogits

ROWS = 7

NOTED = {
    "mul": lambda x: x * 0.25,
    "rmul": lambda x: 3 * x,
    "div": lambda x: x / 8,
    "function": lambda x: torch.div(torch.mul(x, 2.0), 3.0),
    "methods": lambda x: x.mul(2.0).div(3.0).tanh(),
    "tanh": lambda x: torch.tanh(x),
    "nn.functional": lambda x: F.tanh(x / 2.0) * 2.0,
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "to by name": lambda x: x.to(dtype=torch.float64),
    "contiguous": lambda x: x.contiguous(),
    "gemma": lambda x: torch.tanh(x / 30.0) * 30.0,
}
NEEDS_ALL = {
    "slice": lambda x: x[..., :-1, :],
    "columns": lambda x: x[..., :3],
    "view": lambda x: x.view(-1, ROWS),
    "softmax": lambda x: x.softmax(-1),
    "cross_entropy": lambda x: F.cross_entropy(x.flatten(0, 1), torch.zeros(6, dtype=torch.long)),
    "add": lambda x: x + torch.arange(float(ROWS)),
    "from the left": lambda x: torch.arange(1.0, ROWS + 1) * x,
    "by a tensor": lambda x: x * torch.arange(float(ROWS)),
    "one over": lambda x: 1 / x,
    "negative": lambda x: -x,
    "maximum": lambda x: x.max(),
    "to a device": lambda x: x.to("cpu"),
    "in a list": lambda x: torch.cat([x, x], dim=-1),
    "attribute": lambda x: x.requires_grad,
    "rounded": lambda x: torch.div(x, 3.0, rounding_mode="floor"),
    "a truth": lambda x: x * True,
    "compared": lambda x: x > 0,
}


@pytest.fixture
def logits():
    """Logits in bf16 that stand for a product, with what was asked of them so far."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 3, 4).bfloat16(), torch.randn(ROWS, 4).bfloat16()
    asked: list[str] = []
    deferred = DeferredLogits(hidden, ROWS, lambda each: F.linear(each, weight), asked.append)
    deferred.asked, deferred.whole = asked, F.linear(hidden, weight)
    return deferred


@pytest.mark.parametrize("name", NOTED)
def test_what_is_done_to_each_logit_by_itself_is_noted_and_makes_none(logits, name):
    found, expected = NOTED[name](logits), NOTED[name](logits.whole)
    assert isinstance(found, DeferredLogits) and logits.asked == []
    assert (found.dtype, found.shape, found.dim()) == (expected.dtype, expected.shape, expected.dim())
    assert torch.equal(found.transform(logits.whole), expected)
    assert torch.equal(found.made("a test"), expected)


@pytest.mark.parametrize("name", NEEDS_ALL)
def test_whatever_else_is_asked_is_asked_of_the_logits(logits, name):
    found, expected = NEEDS_ALL[name](logits), NEEDS_ALL[name](logits.whole)
    assert not isinstance(found, DeferredLogits) and len(logits.asked) == 1
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


def test_asking_for_sizes_and_places_makes_nothing(logits):
    assert logits.size() == logits.whole.size() and logits.size(-1) == ROWS and logits.shape[-1] == ROWS
    assert logits.device == logits.whole.device and logits.dtype is torch.bfloat16
    assert torch.zeros(2).to(logits.device).device == logits.device
    assert logits.asked == []


def test_a_change_in_place_is_in_what_is_made(logits):
    logits[:, :, 3] = -1.0
    assert logits.is_made and (logits.made("")[:, :, 3] == -1).all()
    after = logits * 2.0
    assert isinstance(after, torch.Tensor) and (after[:, :, 3] == -2).all()


def test_what_gives_the_tensor_itself_gives_the_same_deferred_logits(logits):
    """So that a change of one in place is a change of the other, as with a tensor."""
    assert logits.contiguous() is logits and logits.to(torch.bfloat16) is logits
    assert logits.float() is not logits


def test_autocast_decides_the_dtype_as_it_does_for_a_product():
    hidden = torch.zeros(2, 4)
    deferred = DeferredLogits(hidden, ROWS, lambda each: F.linear(each, torch.zeros(ROWS, 4)), lambda _: None)
    with torch.autocast("cpu", torch.bfloat16):
        assert deferred.dtype is torch.bfloat16 and deferred.made("").dtype is torch.bfloat16


def test_they_are_made_once(logits):
    logits.sum()
    logits.mean()
    assert logits.asked == ["sum"]
