"""A model with frozen rows saves, loads, moves and is read as a plain one."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from eeve_axolotl import rows
from tests.rows.helpers import BASE, EMBEDDING_STAGES, batches, loss_of, mask_for, snapshot, tiny_model, train

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def adamw(model):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)


def trained_model(stage: int = 3, **options):
    model = tiny_model(**options)
    frozen = rows.freeze(model, mask_for(model, stage))
    train(model, adamw(model), batches(2))
    return model, frozen


@pytest.mark.parametrize("stage", EMBEDDING_STAGES)
def test_checkpoints_load_in_plain_transformers(stage, tmp_path):
    model, _ = trained_model(stage)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = batches(1)[0]
    assert torch.equal(loaded.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_loads_into_a_model_with_frozen_rows(assign):
    source, _ = trained_model(3)
    target, _ = trained_model(3, seed=7)
    target.load_state_dict(snapshot(source), assign=assign)
    ids = batches(1)[0]
    assert torch.equal(target(input_ids=ids).logits, source(input_ids=ids).logits)
    before = snapshot(target)
    train(target, adamw(target), batches(1, seed=3))
    after = snapshot(target)
    for name in (TABLE, HEAD):
        assert torch.equal(before[name][:BASE], after[name][:BASE])
        assert not torch.equal(before[name][BASE:], after[name][BASE:])
    ids = batches(1)[0]
    plain = tiny_model()
    plain.load_state_dict(after)
    assert torch.equal(plain(input_ids=ids).logits, target(input_ids=ids).logits)


def test_the_rows_are_the_matrix_after_a_move_to_another_type():
    model, _ = trained_model(3)
    model.to(torch.float64)
    table = model.get_input_embeddings()
    assert table.trained_rows.dtype == torch.float64
    with torch.no_grad():
        table.trained_rows.add_(1)
    assert torch.equal(model.state_dict()[TABLE][BASE:], table.trained_rows.detach())
    ids = torch.full((1, 4), BASE)
    assert torch.equal(table(ids)[0, 0], table.trained_rows[0])


def test_rows_with_a_storage_of_their_own_are_read_all_the_same():
    """What ZeRO-1 and 2 do: they move the trained Parameter's data into a flat buffer."""
    model, _ = trained_model(3)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.trained_rows.data = module.trained_rows.data.clone() + 0.5
    plain = tiny_model()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain.lm_head.weight[BASE:], model.lm_head.trained_rows)
    ids = batches(1)[0]
    assert torch.equal(plain(input_ids=ids).logits, model(input_ids=ids).logits)
    model.zero_grad()
    loss_of(plain, ids).backward()
    loss_of(model, ids).backward()
    for name, module in ((TABLE, model.get_input_embeddings()), (HEAD, model.lm_head)):
        torch.testing.assert_close(module.trained_rows.grad, plain.get_parameter(name).grad[BASE:])


def test_two_forward_passes_before_one_backward_pass():
    """As preference losses do; rows kept apart are copied into the matrix at each."""
    model, _ = trained_model(3)
    model.lm_head.trained_rows.data = model.lm_head.trained_rows.data.clone()
    one, two = batches(2)
    model.zero_grad()
    (loss_of(model, one) + loss_of(model, two)).backward()
    together = model.lm_head.trained_rows.grad.clone()
    model.zero_grad()
    loss_of(model, one).backward()
    loss_of(model, two).backward()
    torch.testing.assert_close(together, model.lm_head.trained_rows.grad)


def test_merge_puts_gathered_rows_where_they_belong():
    model, frozen = trained_model(3)
    expected = snapshot(model)
    gathered = {name: value.detach().clone() for name, value in model.named_parameters()}
    for name in (TABLE, HEAD):
        gathered[name][BASE:] = float("nan")  # stale
    merged = frozen.merge(gathered)
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    assert frozen.merge(merged) is merged


def test_generation_works_while_rows_are_frozen():
    model, frozen = trained_model(3)
    ids = batches(1, size=1, length=4)[0]
    found = model.eval().generate(ids, max_new_tokens=4, do_sample=False)
    frozen.remove()
    assert torch.equal(found, model.generate(ids, max_new_tokens=4, do_sample=False))


@pytest.mark.slow
def test_the_model_compiles():
    model = tiny_model()
    rows.freeze(model, mask_for(model, 3))
    loss_of(model, batches(1)[0]).backward()
    expected = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    model.zero_grad()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    loss_of(compiled, batches(1)[0]).backward()
    found = [each.grad for each in model.parameters() if each.grad is not None]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
