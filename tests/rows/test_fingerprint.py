"""The fingerprint shows any change of what is frozen, says where, and ignores what trains."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from eeve_axolotl import rows
from eeve_axolotl.rows import FrozenMovedError, checksums
from tests.rows.helpers import BASE, HIDDEN, VOCAB, mask_for, tiny_model

INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float64: torch.int64}


def frozen_model(stage: int = 3, dtype=torch.float32, **config):
    model = tiny_model(dtype=dtype, **config)
    return model, rows.freeze(model, mask_for(model, stage))


def bits(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.data.view(INTEGERS[parameter.dtype])


@pytest.mark.parametrize("dtype", list(INTEGERS), ids=str)
@pytest.mark.parametrize("bit", [0, 1, 7, 14, 15, -1])
def test_one_flipped_bit_is_seen_and_its_row_named(dtype, bit):
    model, frozen = frozen_model(dtype=dtype)
    first = frozen.fingerprint()
    size = torch.finfo(dtype).bits
    flip = -(2 ** (size - 1)) if bit % size == size - 1 else 2 ** (bit % size)
    bits(model.get_input_embeddings()._parameters["weight"])[17, 5] ^= flip
    second = frozen.fingerprint()
    assert first.moved(second) == {"input_embeddings": [17]}
    assert first.summary()["input_embeddings"] != second.summary()["input_embeddings"]
    with pytest.raises(
        FrozenMovedError, match=r"1 of 64 frozen rows of input_embeddings \(first: 17\)"
    ) as raised:
        first.check(second)
    assert raised.value.evidence == {"input_embeddings": [17]}


def test_a_change_in_an_internal_layer_is_seen_and_named():
    model, frozen = frozen_model()
    first = frozen.fingerprint()
    bits(model.model.layers[1].mlp.up_proj.weight)[-1, -1] ^= 1
    moved = first.moved(frozen.fingerprint())
    assert moved == {"model.layers.1.mlp.up_proj.weight": "changed"}


def test_changes_that_would_cancel_in_a_plain_sum_are_seen():
    model, frozen = frozen_model()
    weight = model.get_input_embeddings()._parameters["weight"]
    inner = model.model.layers[0].mlp.down_proj.weight

    def seen(change) -> dict:
        kept = weight.data.clone(), inner.data.clone()
        first = frozen.fingerprint()
        change()
        moved = first.moved(frozen.fingerprint())
        weight.data.copy_(kept[0])
        inner.data.copy_(kept[1])
        return moved

    def swap(tensor, one, other):
        values = tensor.data[one].clone()
        tensor.data[one] = tensor.data[other]
        tensor.data[other] = values

    assert seen(lambda: swap(weight, 3, 9)) == {"input_embeddings": [3, 9]}
    assert seen(lambda: swap(weight, (3, 1), (3, 2))) == {"input_embeddings": [3]}
    assert list(seen(lambda: swap(inner, (0, 1), (1, 0)))) == ["model.layers.0.mlp.down_proj.weight"]
    signs = seen(lambda: weight.data[4].neg_())  # flips every top bit of the row, an even number of them
    assert signs == {"input_embeddings": [4]}
    assert seen(lambda: None) == {}


def test_elements_of_different_tiles_are_told_apart():
    """A parameter longer than one set of keys (65,536 elements)."""
    model, frozen = frozen_model(hidden_size=512, intermediate_size=512)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.numel() > 2 * 65536
    flat = weight.data.view(-1)
    first = frozen.fingerprint()
    for one, other in ((7, 65536 + 7), (65536 + 1, 2 * 65536), (1, 65536)):
        kept = flat.clone()
        flat[one], flat[other] = kept[other], kept[one]
        assert list(first.moved(frozen.fingerprint())) == ["model.layers.0.mlp.up_proj.weight"]
        flat.copy_(kept)
    assert not first.moved(frozen.fingerprint())


def test_rows_that_train_are_no_part_of_it():
    _, frozen = frozen_model(3)
    first = frozen.fingerprint()
    with torch.no_grad():
        for parameter in frozen.trained_parameters().values():
            parameter.add_(1)
    first.check(frozen.fingerprint())
    assert first.summary().keys() == {"input_embeddings", "output_embeddings", "internal_layers"}


@pytest.mark.parametrize(
    "stage, blocks",
    [
        (1, {"input_embeddings": BASE, "output_embeddings": VOCAB}),
        (2, {"input_embeddings": VOCAB, "output_embeddings": BASE}),
        (3, {"input_embeddings": BASE, "output_embeddings": BASE}),
        (4, {"input_embeddings": VOCAB}),
        (5, {"input_embeddings": BASE}),
    ],
)
def test_it_covers_every_frozen_row_of_the_stage_and_all_internal_layers(stage, blocks):
    model, frozen = frozen_model(stage)
    print_ = frozen.fingerprint()
    assert {name: len(sums) for name, sums in print_.rows.items()} == blocks
    internal = {name for name, _ in model.named_parameters() if "layers" in name or "norm" in name}
    assert print_.parameters.keys() == internal


def test_a_block_that_has_gone_is_a_change():
    _, frozen = frozen_model()
    first = frozen.fingerprint()
    second = frozen.fingerprint()
    del second.parameters["model.norm.weight"]
    assert first.moved(second) == {"model.norm.weight": "changed"}


def test_it_is_the_sum_of_what_each_part_holds():
    """What lets ranks sum their shards: pieces cut anywhere, also inside a row, add up to the whole."""
    torch.manual_seed(0)
    elements = torch.randn(VOCAB * HIDDEN)
    keys = checksums._KeysByDevice()
    expected = checksums._row_sums(elements, 0, HIDDEN, VOCAB, keys)
    for cuts in ([0, 1000, 3072], [0, 1, 33, 1500, 3071, 3072], [0, 5, 7, 3072]):
        total = torch.zeros(VOCAB, dtype=torch.int64)
        for low, high in pairwise(cuts):
            total += checksums._row_sums(elements[low:high], low, HIDDEN, VOCAB, keys)
        assert torch.equal(total, expected)
