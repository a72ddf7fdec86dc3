"""The arithmetic of a matrix in FP8, beside a plain reference."""

import logging

import pytest
import torch

from eeve_axolotl.frozen_precision import float8
from eeve_axolotl.frozen_precision.float8 import FP8, Float8Matrix, fits, held_bytes, quantise

OUT, IN, TOKENS = 48, 64, 24
# Of a product of two operands with 3 bits of mantissa each, rounded to nearest: about 4 %.
NOISE = 0.06


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uneven(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Rows whose sizes differ by up to a thousand, as those of weights and of gradients do."""
    return random(rows, columns, seed=seed) * torch.logspace(-3, 0, rows)[:, None]


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


def test_values_times_scales_are_the_weight_within_its_own_rounding():
    weight = uneven(OUT, IN)
    values, scale = quantise(weight)
    assert (values.dtype, values.shape, scale.dtype, scale.shape) == (
        FP8,
        (OUT, IN),
        torch.float32,
        (OUT, 1),
    )
    largest = weight.abs().amax(1, keepdim=True)
    off = (values.float() * scale - weight).abs()
    # Half a unit in the last of 3 bits; below the smallest normal value, half of the smallest there is.
    assert (off <= torch.maximum(weight.abs() / 16, largest / 448 * 2**-10) * 1.0001).all()
    assert (values.float().abs().amax(1) == 448).all()


@pytest.mark.parametrize("rows", [1, 47, 1024, 1025])
def test_a_weight_is_quantised_the_same_however_many_rows_are_taken_at_once(rows):
    weight = uneven(rows, 16)
    values, scale = quantise(weight)
    matrix = Float8Matrix.of(weight)
    assert torch.equal(matrix.values.view(torch.uint8), values.view(torch.uint8))
    assert torch.equal(matrix.scale, scale)
    assert matrix.nbytes == held_bytes(rows, 16) == rows * 16 + rows * 4


def test_zeros_and_tiny_gradients_are_no_nans_and_not_lost():
    """A gradient of a token times a scale of the matrix is far below what other quantisers call zero."""
    values, scale = quantise(torch.zeros(2, 16))
    assert (values.float() == 0).all() and torch.isfinite(scale).all()
    matrix, gradient = Float8Matrix.of(random(OUT, IN) * 1e-3), random(TOKENS, OUT, seed=1) * 1e-12
    exact = gradient @ (matrix.values.float() * matrix.scale)
    assert error(matrix.backward(gradient), exact) < NOISE


def test_what_is_not_finite_stays_so():
    hidden = random(TOKENS, IN)
    hidden[3, 5], hidden[4, 6] = float("inf"), float("nan")
    finite = torch.isfinite(Float8Matrix.of(random(OUT, IN)).forward(hidden)).all(1)
    assert finite.tolist() == [token not in (3, 4) for token in range(TOKENS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_products_are_the_plain_ones_within_the_noise_of_8_bits(dtype):
    weight = uneven(OUT, IN).to(dtype)
    hidden, gradient = uneven(TOKENS, IN, seed=1).to(dtype), uneven(TOKENS, OUT, seed=2).to(dtype)
    matrix = Float8Matrix.of(weight)
    forward, backward = matrix.forward(hidden), matrix.backward(gradient)
    assert forward.dtype == backward.dtype == torch.bfloat16
    assert 0.005 < error(forward, hidden.float() @ weight.float().t()) < NOISE
    assert 0.005 < error(backward, gradient.float() @ weight.float()) < NOISE
    # Every token by itself too: its scale is its own.
    for found, exact in (
        (forward, hidden.float() @ weight.float().t()),
        (backward, gradient.float() @ weight.float()),
    ):
        assert ((found.float() - exact).norm(dim=1) < 2 * NOISE * exact.norm(dim=1)).all()


def test_both_passes_read_the_same_8_bits():
    """The product's transpose, operand by operand, in 64 bits: what is left is the rounding of the other operand."""
    matrix = Float8Matrix.of(uneven(OUT, IN))
    held = matrix.values.double() * matrix.scale.double()
    hidden, gradient = random(TOKENS, IN, seed=1), random(TOKENS, OUT, seed=2)

    small, scale = quantise(hidden)
    exact = (small.double() * scale.double()) @ held.t()
    torch.testing.assert_close(matrix.forward(hidden).double(), exact, rtol=2**-8, atol=1e-6)

    small, scale = quantise(gradient, matrix.scale.t())
    exact = (small.double() * scale.double()) @ matrix.values.double()
    torch.testing.assert_close(matrix.backward(gradient).double(), exact, rtol=2**-8, atol=1e-6)
    assert error(matrix.backward(gradient), (gradient.double() @ held).float()) < NOISE


@pytest.mark.parametrize("tokens", [1, 7, TOKENS])
def test_the_emulation_gives_what_a_cards_kernel_gives(tokens, monkeypatch):
    """torch._scaled_mm with scales by row, which PyTorch has on CPUs too; any number of tokens."""
    matrix = Float8Matrix.of(uneven(OUT, IN).bfloat16())
    hidden, gradient = random(tokens, IN, seed=1).bfloat16(), random(tokens, OUT, seed=2).bfloat16()
    emulated = matrix.forward(hidden), matrix.backward(gradient)
    monkeypatch.setattr(float8, "_product", lambda device: float8.on_the_card)
    try:
        kernel = matrix.forward(hidden), matrix.backward(gradient)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"this PyTorch has no such kernel on CPUs: {error}")
    for one, other in zip(emulated, kernel, strict=True):
        torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-6)


def test_autocast_does_not_round_what_is_emulated():
    matrix, hidden = Float8Matrix.of(random(OUT, IN)), random(TOKENS, IN, seed=1)
    plain = matrix.forward(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(matrix.forward(hidden), plain)


def test_only_sides_of_sixteen_fit():
    assert fits(16, 48) and not fits(16, 40) and not fits(8, 48)


def test_where_no_kernel_can_be_compiled_it_says_so_and_goes_on(monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no C compiler\nwas found")

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: fail)
    float8._fused_quantise.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "axolotl.eeve.frozen_precision"):
            assert float8._fused_quantise("cpu") is quantise
    finally:
        float8._fused_quantise.cache_clear()
    assert "without a fused kernel, which is slow (no C compiler was found)" in caplog.text
