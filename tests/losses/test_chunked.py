"""transformers models with the loss in chunks beside the same models with their own."""

from __future__ import annotations

import copy
import logging
import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from eeve_axolotl import rows
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.losses import chunked as adapter
from eeve_axolotl.losses import linear_cross_entropy as arithmetic
from eeve_axolotl.losses.chunked import use_chunked_loss
from eeve_axolotl.losses.deferred import DeferredLogits
from eeve_axolotl.stages import STAGES
from tests.losses.products import Products
from tests.rows import helpers
from tests.rows.helpers import BASE, EMBEDDING_STAGES, HIDDEN, batches, mask_for, snapshot

pytestmark = pytest.mark.usefixtures("one_thread", "small_chunks")

VOCAB = 100  # which is no other size in these models
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
# What each does between its head and its loss is its own.
OTHERS = {
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 3.0},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "granitemoe": {"logits_scaling": 4.0, "num_local_experts": 4},
    "mixtral": {"num_local_experts": 4, "output_router_logits": True, "router_aux_loss_coef": 0.5},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": HIDDEN, "dropout": 0.0},
    "gptj": {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "resid_pdrop": 0.0},
    "nanochat": {"final_logit_softcapping": 3.0},
}
FAMILIES = ["llama", "gpt_neox", "phi", *OTHERS]
PLAIN_ONES = {
    "pegasus": {"d_model": HIDDEN, "decoder_layers": 2, "decoder_attention_heads": 4, "dropout": 0.0},
    "trocr": {"d_model": HIDDEN, "decoder_layers": 2, "decoder_attention_heads": 4, "dropout": 0.0},
}
CHUNK = 16


@pytest.fixture
def small_chunks(monkeypatch):
    """As many chunks on a tiny model as a large one has."""
    monkeypatch.setitem(arithmetic._ELEMENTS, "cpu", CHUNK * VOCAB)
    monkeypatch.setattr(arithmetic, "_LEAST_TOKENS", CHUNK)


def tiny_model(family: str, dtype=torch.float32):
    return helpers.tiny_model(family, dtype, vocab_size=VOCAB)


def model_of(family: str, dtype=torch.float32):
    if family not in OTHERS and family not in PLAIN_ONES:
        return tiny_model(family, dtype)
    sizes = {**SIZES, **OTHERS.get(family, {}), **PLAIN_ONES.get(family, {})}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).to(dtype)
    for name, each in model.named_parameters():
        if name.endswith("lm_head.bias"):
            torch.nn.init.normal_(each, std=0.1)
    return model.train()


def both(family: str, stage: int, dtype=torch.float32):
    """The same model twice, frozen for a stage: with its own loss, and with the one in chunks."""
    models = [model_of(family, dtype) for _ in range(2)]
    for model in models:
        rows.freeze(model, mask_for(model, stage))
    assert use_chunked_loss(models[1])
    return models


class NoWholeLogits(TorchDispatchMode):
    """Fails where logits, or something of their shape, are made of more tokens than a chunk has."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor) and each.shape[-1:] == (VOCAB,):
                assert each.numel() <= max(CHUNK, HIDDEN) * VOCAB, function  # the head itself is as wide
        return result


def gradients(model, **inputs) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return {"loss": loss.detach(), **found}


def assert_same(found: dict, expected: dict, within: float = 2e-5) -> None:
    assert found.keys() == expected.keys() and len(found) > 1
    for name, each in expected.items():
        assert (found[name] - each).abs().max() <= within * each.abs().max(), name


def said(caplog) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "axolotl.eeve.head_loss"]


def batch(size=8, length=16) -> dict[str, torch.Tensor]:
    (ids,) = batches(1, size, length)
    labels = ids.clone()
    labels[0, :5] = labels[3] = -100
    return {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_has_its_own_loss_and_gradients_without_its_logits(family, stage):
    plain, ours = both(family, stage)
    inputs = batch()
    expected = gradients(plain, **inputs)
    with NoWholeLogits():
        found = gradients(ours, **inputs)
    assert_same(found, expected)


@pytest.mark.parametrize(
    "stage, trained", [(1, 0), (2, VOCAB - BASE), (3, VOCAB - BASE), (4, VOCAB), (5, VOCAB)]
)
def test_of_the_head_that_is_multiplied_which_the_stage_needs(stage, trained):
    """As much as with the plain loss, where `rows` sees to it, but for tokens without a target, which are left out."""
    plain, ours = both("llama", stage)
    inputs = batch()
    gradients(ours, **inputs)  # the first batch compares the losses
    with Products() as expected:
        gradients(plain, **inputs)
    with Products() as found:
        gradients(ours, **inputs)
    left_out = inputs["labels"].numel() - int((inputs["labels"][:, 1:] != -100).sum())
    multiplied = VOCAB * (1 + STAGES[stage].backward_through_layers) + trained
    assert expected.count - found.count == left_out * HIDDEN * multiplied


@pytest.mark.parametrize("stage", [3, 4])
@pytest.mark.parametrize("family", ["tied_llama", "qwen2", "gemma"])
def test_tied_embeddings_get_both_gradients_in_their_one_matrix(family, stage):
    plain, ours = both(family, stage)
    assert_same(gradients(ours, **batch()), gradients(plain, **batch()))


@pytest.mark.both_versions
@pytest.mark.parametrize("family", PLAIN_ONES)
def test_an_architecture_that_reads_its_logits_gets_them_and_the_log_says_so(family, caplog):
    plain, ours = model_of(family), model_of(family)
    assert use_chunked_loss(ours)
    with caplog.at_level(logging.INFO, "axolotl.eeve.head_loss"):
        for _ in range(2):
            found = gradients(ours, **batch())
    assert_same(found, gradients(plain, **batch()), 0)
    (line,) = said(caplog)
    assert f"{type(ours).__name__} makes its logits after all" in line


@pytest.mark.parametrize(
    "options",
    [
        {"num_items_in_batch": 301},
        {"num_items_in_batch": torch.tensor(77)},
        {"position_ids": torch.arange(8).repeat(8, 2)},
        {"attention_mask": torch.ones(8, 16).tril(12)},
        {"logits_to_keep": 0, "use_cache": False, "return_dict": True},
        {"shift_labels": torch.randint(0, VOCAB, (8, 16), generator=torch.Generator().manual_seed(3))},
        {"ignore_index": 7, "labels": batches(1, 8, 16)[0]},
    ],
    ids=lambda options: "+".join(options),
)
def test_what_a_trainer_passes_along_means_what_it_means(options):
    plain, ours = both("llama", 3)
    inputs = batch() | options
    expected = gradients(plain, **inputs)
    with NoWholeLogits():
        assert_same(gradients(ours, **inputs), expected)


def test_accumulated_micro_batches_add_up_to_the_batch():
    plain, ours = both("llama", 5)
    inputs = batch()
    expected = gradients(plain, **inputs)
    ours.zero_grad()
    count = (inputs["labels"][:, 1:] != -100).sum()
    for part in range(4):
        micro = {name: each[2 * part : 2 * part + 2] for name, each in inputs.items()}
        ours(**micro, num_items_in_batch=count).loss.backward()
    found = {name: each.grad for name, each in ours.named_parameters() if each.grad is not None}
    assert_same({"loss": expected["loss"], **found}, expected)


def test_labels_may_come_by_position():
    plain, ours = both("llama", 3)
    inputs = batch()
    with NoWholeLogits():
        loss = ours(inputs["input_ids"], None, None, None, None, inputs["labels"]).loss
    assert loss.item() == pytest.approx(plain(**inputs).loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    "dtype, losses_within, weights_within",
    # bf16 keeps 8 bits: a loss of about 4.6 has steps of 2**-6.
    [(torch.float32, 1e-5, 1e-4), (torch.bfloat16, 2**-5, 0.1)],
    ids=["fp32", "bf16"],
)
@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_fifty_steps_of_training_are_those_of_the_plain_loss(stage, dtype, losses_within, weights_within):
    """In the manner of Liger-Kernel's convergence tests: losses step by step, and the weights at the end by
    how far they went."""
    data = batches(5, 4, 16) * 10  # seen again, so that the loss falls
    runs = []
    for model in both("llama", stage, dtype):
        trained = [each for each in model.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1, eps=1e-6)
        losses = []
        for ids in data:
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        runs.append((losses, snapshot(model)))
    (plain, plain_weights), (ours, our_weights) = runs
    assert ours == pytest.approx(plain, abs=losses_within)
    assert plain[-1] < plain[0] - 0.02
    start = snapshot(model_of("llama", dtype))
    for name, each in plain_weights.items():
        went = (each - start[name]).float().norm()
        assert (our_weights[name] - each).float().norm() <= weights_within * went, name


@pytest.mark.parametrize("way", ["evaluation", "no gradients", "no labels"])
def test_who_does_not_train_gets_logits(way):
    plain, ours = both("llama", 3)
    inputs = batch()
    found = []
    for model in (plain, ours):
        model.train(way != "evaluation")
        with torch.set_grad_enabled(way != "no gradients"):
            output = model(inputs["input_ids"], labels=None if way == "no labels" else inputs["labels"])
        assert isinstance(output.logits, torch.Tensor)
        found.append(output)
    assert torch.equal(found[0].logits, found[1].logits)
    assert way == "no labels" or torch.equal(found[0].loss, found[1].loss)


def test_an_evaluation_that_wants_the_loss_alone_can_have_it_in_chunks():
    plain, ours = (model.eval() for model in both("llama", 3))
    chunked = next(iter(ours._forward_hooks.values())).__self__
    chunked.in_evaluation = True
    with torch.no_grad(), NoWholeLogits():
        found = ours(**batch()).loss
    assert found.item() == pytest.approx(plain(**batch()).loss.item(), rel=1e-6)
    assert not found.requires_grad


def test_logits_that_are_asked_for_in_training_are_made_then():
    plain, ours = both("cohere", 3)
    output, expected = ours(**batch()), plain(**batch())
    assert isinstance(output.logits, DeferredLogits)
    assert torch.equal(output.logits.argmax(-1), expected.logits.argmax(-1))
    assert torch.equal(output.logits + 0, expected.logits)


def test_adapters_around_the_model_change_nothing():
    from peft import LoraConfig, get_peft_model

    models = []
    for _ in range(2):
        torch.manual_seed(0)
        config = LoraConfig(
            r=4,
            target_modules="all-linear",
            modules_to_save=["embed_tokens", "lm_head"],
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(tiny_model("llama"), config)
        rows.freeze(model, mask_for(model, 6))
        models.append(model)
    plain, ours = models
    assert use_chunked_loss(ours)
    inputs = batch()
    expected = gradients(plain, **inputs)
    assert any("lora_" in name for name in expected) and any("lm_head" in name for name in expected)
    with NoWholeLogits():
        assert_same(gradients(ours, **inputs), expected)


def test_autocast_over_weights_in_32_bits():
    plain, ours = both("llama", 5)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = gradients(plain, **batch()), gradients(ours, **batch())
    assert_same(found, expected, 3e-2)
    assert found["lm_head.weight"].dtype is torch.float32


def test_the_model_is_as_it_was_afterwards_and_after_an_error():
    model = tiny_model("llama")
    before = {name: set(each.__dict__) for name, each in model.named_modules()}
    head, forward, keys = model.lm_head, model.lm_head.forward, list(model.state_dict())
    chunked = use_chunked_loss(model)
    assert model.lm_head is head and list(model.state_dict()) == keys
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[VOCAB + 5]]), labels=torch.tensor([[1]]))
    assert model.lm_head is head
    assert isinstance(model(input_ids=torch.tensor([[5]])).logits, torch.Tensor)
    chunked.remove()
    assert model.lm_head.forward == forward
    after = {name: set(each.__dict__) for name, each in model.named_modules()}
    after[""].discard("_loss_function")
    assert after == before
    assert isinstance(model(**batch()).logits, torch.Tensor)


def test_while_the_forward_pass_runs_its_head_is_found_by_who_walks_over_the_model():
    """DeepSpeed does, in a hook of its own."""
    model = tiny_model("llama")
    assert use_chunked_loss(model)
    head, found = model.lm_head, []
    model.register_forward_pre_hook(lambda each, _: found.extend([*each.modules(), *each.state_dict()]))
    model(**batch())
    assert head in found and "lm_head.weight" in found


def test_a_copy_of_a_model_trains_its_own_rows():
    _, ours = both("llama", 3)
    other = copy.deepcopy(ours)
    with torch.no_grad():
        other.lm_head.trained_rows.mul_(2)
    one, two = gradients(ours, **batch()), gradients(other, **batch())
    assert one["loss"] != two["loss"]
    assert other.lm_head.trained_rows.grad is not ours.lm_head.trained_rows.grad
    plain = tiny_model("llama")
    plain.load_state_dict(other.state_dict())
    assert two["loss"].item() == pytest.approx(plain(**batch()).loss.item(), rel=1e-6)


def _another_loss(model):
    model.loss_function = lambda logits, labels, vocab_size, **_: logits.sum()


def _another_forward(model):
    model.lm_head.register_forward_hook(lambda module, args, output: output * 2)


def _another_class(model):
    class Normed(torch.nn.Linear):
        def forward(self, hidden):
            return F.linear(hidden, F.normalize(self.weight))

    model.lm_head.__class__ = Normed


def _eight_bits(model):
    model.lm_head._parameters["weight"] = torch.nn.Parameter(
        torch.zeros(VOCAB, HIDDEN, dtype=torch.int8), False
    )


def _two_places(model):
    model.also = model.lm_head


@pytest.mark.parametrize(
    "change, why",
    [
        (_another_loss, "has another loss"),
        (_another_forward, "something else has changed what the head does"),
        (_another_class, "Normed, not a torch.nn.Linear"),
        (_eight_bits, r"quantised \(torch.int8\)"),
        (_two_places, "2 places"),
    ],
)
def test_what_is_not_as_transformers_made_it_keeps_its_own_loss_and_the_log_says_why(change, why, caplog):
    model = tiny_model("llama")
    change(model)
    before = {name: set(each.__dict__) for name, each in model.named_modules()}
    with caplog.at_level(logging.INFO, "axolotl.eeve.head_loss"):
        assert use_chunked_loss(model) is None
    (line,) = said(caplog)
    assert line.startswith("head_loss: plain, for ")
    assert re.search(why, line)
    assert before == {name: set(each.__dict__) for name, each in model.named_modules()}


def test_a_patched_cross_entropy_is_left_alone(monkeypatch):
    """Liger replaces PyTorch's function itself, under the same loss of transformers."""

    def cross_entropy(*args, **kwargs):
        raise AssertionError("not asked")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", cross_entropy)
    assert use_chunked_loss(tiny_model("llama")) is None


def test_code_that_reads_the_heads_weight_past_its_forward_goes_on_doing_so():
    from tests.rows.helpers import read_past_the_head

    plain, ours = both("llama", 3)
    for model in (plain, ours):
        read_past_the_head(model)
    inputs = batch()
    assert_same(gradients(ours, **inputs), gradients(plain, **inputs), 0)


def test_a_loss_that_is_not_the_models_own_stops_the_run_at_its_first_batch(monkeypatch):
    _, ours = both("llama", 3)
    right = adapter.linear_cross_entropy
    monkeypatch.setattr(
        adapter, "linear_cross_entropy", lambda *args, **kwargs: right(*args, **kwargs) * 1.01
    )
    with pytest.raises(EEVEError, match=r"where the model's own gives .*; set `eeve: \{head_loss: plain\}`"):
        ours(**batch())


def test_a_compiled_model_makes_its_logits():
    plain, ours = both("llama", 3)
    compiled = torch.compile(ours, backend="eager")
    try:
        assert compiled(**batch()).loss.item() == pytest.approx(plain(**batch()).loss.item(), rel=1e-6)
        assert isinstance(compiled(**batch()).logits, torch.Tensor)
    finally:
        torch.compiler.reset()


def test_every_stage_has_a_model_in_these_tests():
    assert {*EMBEDDING_STAGES, 6} <= set(STAGES)
