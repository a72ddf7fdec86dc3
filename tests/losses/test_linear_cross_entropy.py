"""The loss in chunks beside PyTorch's own over whole logits: values, gradients, what is computed, what is held."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from benchmarks.allocated import peak_bytes
from eeve_axolotl.losses.linear_cross_entropy import TrainedRows, linear_cross_entropy, tokens_per_chunk
from tests.losses.products import Products

TOKENS, WIDTH, ROWS = 37, 16, 96
SPANS = {"none": None, "new": (64, 96), "middle": (20, 31), "all": (0, ROWS)}
CAPPED = {"none": None, "scale": lambda x: x / 8.0, "cap": lambda x: torch.tanh(x * 2.0 / 3.0) * 3.0}


class Problem:
    """Hidden states, a head and targets, of which every third is ignored or none but the last."""

    def __init__(self, dtype=torch.float64, bias=True, ignored="a few", seed=0, tokens=TOKENS, rows=ROWS):
        generator = torch.Generator().manual_seed(seed)

        def random(*size):
            return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

        self.hidden, self.weight = random(tokens, WIDTH), random(rows, WIDTH)
        self.bias = random(rows) if bias else None
        self.target = torch.randint(0, rows, (tokens,), generator=generator)
        if ignored == "a few":
            self.target[-2:] = -100
        elif ignored == "many":
            self.target[::3] = -100
        elif ignored == "all":
            self.target[:] = -100

    def ours(self, span, needs_hidden=True, scale=3.0, **options):
        """The loss, and the gradients of hidden states, trained rows and their bias (None where there is none)."""
        hidden = self.hidden.clone().requires_grad_(needs_hidden)
        rows = bias = trained = None
        if span is not None:
            rows = self.weight[slice(*span)].clone().requires_grad_()
            bias = None if self.bias is None else self.bias[slice(*span)].clone().requires_grad_()
            trained = TrainedRows(rows, bias, span[0])
        loss = linear_cross_entropy(hidden, self.weight, self.target, self.bias, trained=trained, **options)
        if loss.requires_grad:
            (scale * loss).backward()
        return loss.detach(), [None if each is None else each.grad for each in (hidden, rows, bias)]

    def plain(self, span, needs_hidden=True, scale=3.0, transform=None, divisor=None, ignore_index=-100):
        """The same by torch.nn.functional over whole logits."""
        hidden = self.hidden.clone().requires_grad_()
        weight = self.weight.clone().requires_grad_()
        bias = None if self.bias is None else self.bias.clone().requires_grad_()
        logits = F.linear(hidden, weight, bias)
        logits = logits if transform is None else transform(logits)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        reduction = "mean" if divisor is None else "sum"
        loss = F.cross_entropy(logits, self.target, ignore_index=ignore_index, reduction=reduction)
        loss = loss if divisor is None else loss / divisor
        (scale * loss).backward()
        rows = slice(*(span or (0, 0)))
        return loss.detach(), [
            hidden.grad if needs_hidden else None,
            weight.grad[rows] if span else None,
            bias.grad[rows] if span and bias is not None else None,
        ]


def assert_same(found, expected, within: float) -> None:
    """Losses, and gradients by the size of the largest element."""
    torch.testing.assert_close(found[0], expected[0], rtol=within, atol=within, equal_nan=True)
    for one, other in zip(found[1], expected[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype and one.shape == other.shape
            assert not one.numel() or (one - other).abs().max() <= within * other.abs().max()


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("needs_hidden", [True, False], ids=["below", "nothing_below"])
@pytest.mark.parametrize("capped", CAPPED)
@pytest.mark.parametrize("ignored", ["none", "a few", "many"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_loss_and_gradients_are_those_over_whole_logits(span, needs_hidden, capped, ignored, bias):
    problem = Problem(bias=bias, ignored=ignored)
    span, transform = SPANS[span], CAPPED[capped]
    found = problem.ours(span, needs_hidden, transform=transform, chunk=7)
    assert_same(found, problem.plain(span, needs_hidden, transform=transform), 1e-12)


@pytest.mark.parametrize("chunk", [1, 2, TOKENS - 1, TOKENS, TOKENS + 1, 10_000])
@pytest.mark.parametrize("ignored", ["none", "many"])
def test_where_chunks_begin_and_end_changes_nothing(chunk, ignored):
    problem = Problem(ignored=ignored)
    assert_same(problem.ours((64, 96), chunk=chunk), problem.plain((64, 96)), 1e-12)


@pytest.mark.parametrize("divisor", [5, 41.0, torch.tensor(17)])
def test_the_sum_is_divided_by_what_the_caller_counts(divisor):
    problem = Problem(ignored="many")
    found = problem.ours((64, 96), divisor=divisor, chunk=8)
    assert_same(found, problem.plain((64, 96), divisor=divisor), 1e-12)


def test_another_number_may_mean_to_be_ignored():
    problem = Problem(ignored="none")
    problem.target[::4] = 7
    assert_same(problem.ours((0, ROWS), ignore_index=7), problem.plain((0, ROWS), ignore_index=7), 1e-12)


def test_without_a_target_the_mean_is_no_number_and_the_sum_is_nothing():
    problem = Problem(ignored="all")
    assert problem.ours((64, 96))[0].isnan()
    loss, gradients = problem.ours((64, 96), divisor=3)
    assert loss == 0 and all(not each.any() for each in gradients)


@pytest.mark.parametrize("tokens", [1, 0])
def test_one_token_or_none(tokens):
    problem = Problem(ignored="none", tokens=tokens)
    assert_same(problem.ours((64, 96), divisor=2), problem.plain((64, 96), divisor=2), 1e-12)


@pytest.mark.parametrize("span", SPANS)
def test_fp32_is_tight(span):
    problem, span = Problem(torch.float32), SPANS[span]
    assert_same(problem.ours(span, chunk=7), problem.plain(span), 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("capped", CAPPED)
@pytest.mark.parametrize("chunk", [4, 1000])
def test_bf16_is_as_near_to_exact_gradients_as_the_plain_way(chunk, capped):
    """In one chunk or in many: what is added up over chunks is added up in 32 bits."""
    sizes = {"tokens": 512, "rows": ROWS}
    problem, transform = Problem(torch.bfloat16, **sizes), CAPPED[capped]
    exact = Problem(torch.float64, **sizes)
    for name in ("hidden", "weight", "bias"):
        setattr(exact, name, getattr(problem, name).double())
    loss, expected = exact.plain((0, ROWS), transform=transform)

    def distances(found):
        return [
            ((one.double() - other).norm() / other.norm()).item()
            for one, other in zip(found, expected, strict=True)
        ]

    found = problem.ours((0, ROWS), chunk=chunk, transform=transform)
    plain = problem.plain((0, ROWS), transform=transform)
    assert found[0] == pytest.approx(plain[0].item(), abs=1e-5) and found[0] == pytest.approx(
        loss.item(), rel=1e-2
    )
    for ours, theirs in zip(distances(found[1]), distances(plain[1]), strict=True):
        assert ours <= 1.3 * theirs < 0.02


def test_autocast_has_its_products_in_its_dtype_and_gradients_in_the_parameters():
    problem = Problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = problem.ours((64, 96), chunk=8), problem.plain((64, 96))
    assert found[0] != problem.ours((64, 96))[0]
    assert_same(found, expected, 2e-2)


def test_the_scale_of_a_loss_in_fp16_comes_before_small_gradients_vanish():
    problem = Problem(torch.float16, bias=False)
    options = {"divisor": 1e7, "scale": 2.0**20}
    hidden, rows, _ = problem.ours((64, 96), **options)[1]
    exact = Problem(torch.float64, bias=False).plain((64, 96), **options)[1]
    for one, other in ((hidden, exact[0]), (rows, exact[1])):
        assert (one - other).abs().max() < 1e-2 * other.abs().max()


def test_no_graph_no_gradients():
    problem = Problem()
    with torch.no_grad():
        loss, gradients = problem.ours((64, 96))
    assert gradients == [None] * 3
    assert loss == pytest.approx(problem.plain((64, 96))[0].item(), rel=1e-12)


def test_a_second_backward_pass_says_what_to_do():
    problem = Problem()
    hidden = problem.hidden.clone().requires_grad_()
    loss = linear_cross_entropy(hidden, problem.weight, problem.target)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        loss.backward()


def test_shapes_that_do_not_fit_are_refused():
    problem = Problem()
    with pytest.raises(ValueError, match="do not fit"):
        linear_cross_entropy(problem.hidden[None], problem.weight, problem.target)
    with pytest.raises(ValueError, match="do not fit"):
        linear_cross_entropy(problem.hidden, problem.weight, problem.target[1:])


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("needs_hidden", [True, False], ids=["below", "nothing_below"])
def test_only_the_products_are_made_that_something_needs(span, needs_hidden):
    """The logits; the hidden states' gradient where something below trains; of rows those that train."""
    problem, span = Problem(bias=False, ignored="none"), SPANS[span]
    with Products() as products:
        problem.ours(span, needs_hidden, chunk=8)
    rows = ROWS + needs_hidden * ROWS + (span[1] - span[0] if span else 0)
    assert products.count == TOKENS * WIDTH * rows


def test_ignored_tokens_cost_nothing_where_they_are_many():
    problem = Problem(bias=False, ignored="many")
    with Products() as products:
        problem.ours((0, ROWS), chunk=8)
    assert products.count == int((problem.target != -100).sum()) * WIDTH * 3 * ROWS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("span", "needs_hidden"), [*itertools.product([None, (1900, 2000), (0, 2000)], [True, False])]
)
def test_the_logits_are_never_whole(span, needs_hidden):
    tokens, chunk = 4096, 64
    problem = Problem(torch.float32, bias=False, tokens=tokens, rows=2000)
    work = lambda: problem.ours(span, needs_hidden, chunk=chunk)  # noqa: E731
    held = peak_bytes(work)
    whole = 4 * tokens * 2000
    made = 4 * WIDTH * (2 * tokens + 4 * 2000)  # copies of the inputs, and gradients
    assert held < 3 * 4 * chunk * 2000 + made < whole / 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("rows", [96, 40_960, 262_144])
def test_a_chunk_is_a_power_of_two_or_all_tokens(rows, device):
    for tokens in (1, 2, 63, 1000, 65_536):
        size = tokens_per_chunk(tokens, rows, device)
        assert 1 <= size <= tokens
        assert size == tokens or size & (size - 1) == 0
        assert size >= min(tokens, 64)
