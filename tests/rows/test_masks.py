"""Which rows a stage trains in a model, and what is refused with a sentence that says what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eeve_axolotl import rows
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.stages import STAGES, Layers, Rows, Stage
from tests.rows.helpers import (
    BASE,
    EMBEDDING_STAGES,
    NEW,
    VOCAB,
    batches,
    frozen_by_stage,
    mask_for,
    moved,
    snapshot,
    tiny_model,
    train,
)


def adamw(model):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)


class Odd(nn.Module):
    """A model that names nothing as transformers does, and has its two accessors."""

    def __init__(self):
        super().__init__()
        self.words, self.to_logits = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)

    def get_input_embeddings(self):
        return self.words

    def get_output_embeddings(self):
        return self.to_logits


@pytest.mark.parametrize(
    "model, table",
    [
        (tiny_model("llama"), "model.embed_tokens"),
        (tiny_model("gpt_neox"), "gpt_neox.embed_in"),
        (Odd(), "words"),
    ],
    ids=["llama", "gpt_neox", "odd"],
)
def test_matrices_are_found_through_the_accessors_whatever_their_names(model, table):
    mask = mask_for(model, 3)
    assert mask.inputs.module == table
    assert model.get_submodule(mask.outputs.module) is model.get_output_embeddings()
    assert not mask.tied
    assert [(each.start, each.stop) for each in mask.matrices] == [(BASE, VOCAB)] * 2


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
@pytest.mark.parametrize("family", ["gpt_neox", "phi"])
def test_other_heads_and_names_keep_their_frozen_rows(family, stage):
    """GPT-NeoX calls its table embed_in; Phi-2's has a bias, whose entries follow the rows."""
    model = tiny_model(family)
    before = snapshot(model)
    frozen = rows.freeze(model, mask_for(model, stage))
    first = frozen.fingerprint()
    train(model, adamw(model), batches(3), clip=0.5)
    frozen_moved, trained_moved = moved(before, snapshot(model), frozen_by_stage(model, stage))
    heads = 2 if family == "phi" else 1
    expected = {1: NEW, 2: heads * NEW, 3: NEW + heads * NEW, 4: heads * VOCAB, 5: NEW + heads * VOCAB}
    assert (frozen_moved, trained_moved) == (0, expected[stage])
    first.check(frozen.fingerprint())


def test_a_bias_of_the_head_appears_in_the_mask_and_the_fingerprint():
    model = tiny_model("phi")
    frozen = rows.freeze(model, mask_for(model, 2))
    assert frozen.mask.outputs.has_bias
    first = frozen.fingerprint()
    model.lm_head._parameters["bias"].data[5] += 1
    assert first.moved(frozen.fingerprint()) == {"output_embeddings.bias": [5]}


def test_a_scaled_embedding_keeps_its_scale():
    """Gemma's table has a forward of its own around nn.Embedding's."""
    model = tiny_model("gemma", tie_word_embeddings=False)
    with torch.no_grad():
        plain = model(input_ids=batches(1)[0]).logits
    rows.freeze(model, mask_for(model, 3))
    torch.testing.assert_close(model(input_ids=batches(1)[0]).logits, plain, rtol=0, atol=0)

    class Scaled(nn.Embedding):
        def forward(self, input):
            return super().forward(input) * 7

    table = Scaled(VOCAB, 8)
    expected = table(torch.tensor([3, 70]))
    from eeve_axolotl.rows.modules import install

    install(table, BASE, VOCAB)
    found = table(torch.tensor([3, 70]))
    assert torch.equal(found, expected)
    found.sum().backward()
    assert table.trained_rows.grad.shape == (NEW, 8)
    assert table.trained_rows.grad[70 - BASE].eq(7).all() and table.trained_rows.grad.sum() == 7 * 8


@pytest.mark.parametrize("stage", [1, 3])
def test_padding_rows_train_in_the_output_embeddings_only(stage):
    """Rows beyond the tokenizer (resize_token_embeddings_to_32x): nothing reads them, the softmax counts them."""
    tokens = VOCAB - 6
    model = tiny_model()
    before = snapshot(model)
    mask = mask_for(model, stage, vocab_size=tokens)
    rows.freeze(model, mask)
    data = [ids.clamp(max=tokens - 1) for ids in batches(3)]
    train(model, adamw(model), data)
    after = snapshot(model)
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    assert torch.equal(before[table][tokens:], after[table][tokens:])
    assert not (before[table][BASE:tokens] == after[table][BASE:tokens]).all(1).any()
    padding_moved = (before[head][tokens:] != after[head][tokens:]).any(1).all().item()
    assert padding_moved == (stage == 3)


def test_the_padding_token_gets_no_gradient_as_in_any_embedding():
    pad = BASE + 3
    plain, model = tiny_model(pad_token_id=pad), tiny_model(pad_token_id=pad)
    rows.freeze(model, mask_for(model, 1))
    ids = batches(1)[0]
    ids[:, :2] = pad
    for each in (plain, model):
        each(input_ids=ids, labels=ids).loss.backward()
    expected = plain.get_input_embeddings().weight.grad[BASE:]
    assert expected[3].eq(0).all()
    torch.testing.assert_close(model.get_input_embeddings().trained_rows.grad, expected)


@pytest.mark.parametrize("stage", [1, 2, 5])
def test_tied_embeddings_are_refused_where_a_stage_needs_two_matrices(stage):
    with pytest.raises(EEVEError, match=r"use stages 3, 4 .* 6 and 7, or set `eeve.untie: true`"):
        mask_for(tiny_model("tied_llama"), stage)


@pytest.mark.parametrize("family", ["tied_llama", "qwen2", "gemma"])
@pytest.mark.parametrize("stage", [3, 4])
def test_tied_embeddings_train_as_one_matrix_and_stay_tied(family, stage, tmp_path):
    from transformers import AutoModelForCausalLM

    model = tiny_model(family)
    before = snapshot(model)
    frozen = rows.freeze(model, mask_for(model, stage))
    assert frozen.mask.tied and len(frozen.trained_parameters()) == 1
    first = frozen.fingerprint()
    train(model, adamw(model), batches(3))
    first.check(frozen.fingerprint())
    table = next(name for name in before if name.endswith("embed_tokens.weight"))
    changed = (before[table] != snapshot(model)[table]).any(1)
    assert changed[:BASE].sum() == (0 if stage == 3 else BASE)
    assert changed[BASE:].all()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.tie_word_embeddings is True
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    ids = batches(1)[0]
    torch.testing.assert_close(loaded.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    frozen.remove()
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_tied_rows_get_the_gradients_of_both_their_uses():
    plain, model = tiny_model("tied_llama"), tiny_model("tied_llama")
    rows.freeze(model, mask_for(model, 3))
    ids = batches(1)[0]
    for each in (plain, model):
        each(input_ids=ids, labels=ids).loss.backward()
    expected = plain.get_input_embeddings().weight.grad[BASE:]
    torch.testing.assert_close(model.get_input_embeddings().trained_rows.grad, expected)


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
@pytest.mark.parametrize("family", ["tied_llama", "qwen2", "gemma"])
def test_an_untied_model_runs_every_stage_and_saves_two_matrices(family, stage, tmp_path):
    from transformers import AutoModelForCausalLM

    model = tiny_model(family)
    ids = batches(1)[0]
    logits = model(input_ids=ids).logits
    rows.untie(model)
    assert torch.equal(model(input_ids=ids).logits, logits)
    before = snapshot(model)
    rows.freeze(model, mask_for(model, stage))
    train(model, adamw(model), batches(2))
    frozen_moved, trained_moved = moved(before, snapshot(model), frozen_by_stage(model, stage))
    assert frozen_moved == 0 and trained_moved > 0
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.tie_word_embeddings is False
    found, expected = loaded.state_dict(), snapshot(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_untying_twice_changes_nothing():
    model = tiny_model("tied_llama")
    rows.untie(model)
    head = model.get_output_embeddings().weight
    rows.untie(model)
    assert model.get_output_embeddings().weight is head


def test_a_stage_of_ones_own_is_a_triple_of_words():
    stage = Stage("mine", Rows.ALL, Rows.NEW, Layers.FROZEN)
    model = tiny_model()
    before = snapshot(model)
    rows.freeze(model, rows.row_mask(model, stage, BASE))
    train(model, adamw(model), batches(2))
    after = snapshot(model)
    assert torch.equal(before["lm_head.weight"][:BASE], after["lm_head.weight"][:BASE])
    assert not torch.equal(
        before["model.embed_tokens.weight"][:BASE], after["model.embed_tokens.weight"][:BASE]
    )


def test_internal_layers_in_full_train_without_the_embeddings():
    model = tiny_model()
    frozen = rows.freeze(model, rows.row_mask(model, Stage("full", Rows.NONE, Rows.NONE, Layers.FULL), BASE))
    names = set(frozen.trained_parameters())
    embeddings = {"model.embed_tokens.weight", "lm_head.weight"}
    assert names == {name for name, _ in model.named_parameters()} - embeddings


def test_no_new_rows_is_refused():
    model = tiny_model()
    with pytest.raises(EEVEError, match="96 rows and the base tokenizer 96 tokens"):
        rows.row_mask(model, STAGES[1], VOCAB)


def test_a_tokenizer_larger_than_the_model_is_refused():
    with pytest.raises(EEVEError, match="resize the model's embeddings"):
        mask_for(tiny_model(), 1, vocab_size=VOCAB + 1)


def test_a_model_without_embeddings_is_refused():
    with pytest.raises(EEVEError, match="Sequential has no input embeddings"):
        rows.row_mask(nn.Sequential(nn.Linear(2, 2)), STAGES[1], 1)


def test_a_quantised_head_is_refused():
    model = tiny_model()
    head = model.get_output_embeddings()
    head._parameters["weight"] = nn.Parameter(torch.zeros(VOCAB, 16, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(EEVEError, match="quantised"):
        mask_for(model, 2)
    mask_for(model, 1)  # only frozen there: allowed


def test_a_table_that_renormalises_its_rows_is_refused():
    model = tiny_model()
    model.get_input_embeddings().max_norm = 1.0
    with pytest.raises(EEVEError, match="max_norm"):
        mask_for(model, 1)


def test_adapters_on_the_embeddings_are_refused():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_model(), peft.LoraConfig(target_modules=["embed_tokens"]))
    with pytest.raises(EEVEError, match="lora_modules_to_save"):
        rows.row_mask(model, STAGES[6], BASE)
