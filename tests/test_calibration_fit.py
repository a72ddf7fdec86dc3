"""The fit of new output rows: its loss is the model's own, its gradient is right, and a prior holds rows at their start."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from eeve_axolotl.calibration import States, logits_of, output_rows
from eeve_axolotl.calibration.regression import Fit, Head, Level, Logits, fitted, nats
from eeve_axolotl.calibration.states import read_document
from eeve_axolotl.evaluation.scoring import score, with_bos
from tests.conftest import SMALL
from tests.test_calibration import ground, plain, texts_of  # noqa: F401  fixtures

BASE, NEW, WIDTH, TOKENS = 20, 6, 8, 300
KINDS = [Logits(), Logits(0.25), Logits(1.0, 5.0), Logits(2.0, 3.0)]


def problem(logits: Logits, bias: bool, seed: int = 0):
    """A head with new rows among the base's, and states with the tokens that follow them."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(BASE + NEW, WIDTH, generator=draw)
    given = torch.randn(BASE + NEW, generator=draw) if bias else None
    hidden = torch.randn(TOKENS, WIDTH, generator=draw)
    targets = torch.randint(0, BASE + NEW, (TOKENS,), generator=draw)
    new = torch.tensor([3, *range(BASE + 1, BASE + NEW)])  # an id without a token is no new row
    return Head(new, weight, given, logits), hidden, targets


def plainly(head: Head, hidden, targets, rows) -> torch.Tensor:
    """The same loss by a whole matrix of logits."""
    weight = head.weight.index_copy(0, head.new, rows)
    products = hidden @ weight.T + (0 if head.bias is None else head.bias)
    return cross_entropy(head.logits.of(products), targets)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("logits", KINDS)
def test_loss_and_gradient_are_those_of_the_whole_head(monkeypatch, logits, bias):
    monkeypatch.setattr(
        "eeve_axolotl.calibration.regression.CHUNK", 7 * NEW
    )  # chunks that do not come out even
    head, hidden, targets = problem(logits, bias)
    rows = torch.randn(NEW, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = plainly(head, hidden, targets, rows)
    wanted.backward()
    gradient = torch.zeros(NEW, WIDTH)
    given = None if head.bias is None else head.bias[head.new]
    found = nats(head.known(hidden, targets), rows.detach(), given, logits, gradient)
    assert found == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(gradient, rows.grad, atol=1e-6)


def fit_of(prior: float, levels: int = 2) -> tuple[Fit, Head, torch.Tensor, torch.Tensor]:
    head, hidden, targets = problem(Logits(), bias=False)
    targets[targets == head.new[-1]] = 0  # text that lacks the last
    groups = [torch.tensor([0, 0, 0, 1, 1, 1]), torch.arange(NEW)][:levels]
    known = head.known(hidden, targets)
    moments = hidden.T @ hidden / TOKENS
    start = head.weight[head.new].clone()
    return (
        Fit(known, start, None, Logits(), [Level(g, prior) for g in groups], moments),
        head,
        hidden,
        targets,
    )


def test_the_fit_comes_to_where_the_gradient_is_the_priors():
    fit, head, hidden, targets = fit_of(prior=5.0)
    for _ in range(20):
        fit.improve()
    rows = fit.rows().requires_grad_()
    loss = plainly(head, hidden, targets, rows) * TOKENS
    (slope,) = torch.autograd.grad(loss, rows)
    # A correction's size is that of its logits over the text, so the prior's gradient is by the second moments.
    own = fit.rows() - fit.start
    shared = torch.stack([slope[:3].sum(0), slope[3:].sum(0)])
    moments = hidden.T @ hidden / TOKENS
    solved = (
        -torch.linalg.solve(moments, slope.T).T / 5
        - torch.linalg.solve(moments, shared.T).T[[0, 0, 0, 1, 1, 1]] / 5
    )
    assert torch.allclose(own, solved, atol=2e-2)


def test_a_stronger_prior_leaves_rows_nearer_to_their_start():
    moved = []
    for prior in (1.0, 30.0, 1e6):
        fit = fit_of(prior)[0]
        fit.improve()
        moved.append((fit.rows() - fit.start).norm().item())
    assert moved[0] > moved[1] > moved[2] and moved[2] < 1e-2


def test_text_that_was_not_fitted_decides_when_it_ends():
    fit, head, *_ = fit_of(prior=1e-6)  # free to learn 300 tokens by heart
    _, hidden, targets = problem(Logits(), bias=False, seed=9)
    held = head.known(hidden, targets)
    best, least = fitted(fit, held)
    assert least == nats(held, best, None, Logits(), None) <= nats(held, fit.start, None, Logits(), None)
    assert least < nats(held, fit.rows(), None, Logits(), None)  # it went too far, and came back


KEYS: dict[str, dict] = {
    "llama": {},
    "phi": {},
    "gemma2": {"final_logit_softcapping": 4.0, "head_dim": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 8.0},
}


@pytest.mark.parametrize("kind", KEYS)
def test_the_loss_is_the_models_own(ground, kind):  # noqa: F811
    words = plain(ground)[1]
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    shape = {
        "vocab_size": len(words),
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **sizes, **shape, **KEYS[kind])
    ).eval()
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    head, text = model.get_output_embeddings(), texts_of(ground / "text.jsonl")[0]
    states = States.none(len(words), head.weight.shape[1])
    read_document(model, with_bos(words, text), states, 64)
    new = torch.tensor(output_rows.new_rows(words, SMALL).ids)
    logits, bias = logits_of(model.config), getattr(head, "bias", None)
    known = Head(new, head.weight.detach(), None if bias is None else bias.detach(), logits).known(
        *states.whole()
    )
    given = None if bias is None else bias.detach()[new]
    found = nats(known, head.weight.detach()[new].float(), given, logits, None) * len(known)
    wanted = score(model, words, [text], max_length=64).bits_per_byte
    assert found / math.log(2) / len(text.encode()) == pytest.approx(wanted, rel=1e-4)
