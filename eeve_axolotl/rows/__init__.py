"""Freezing rows: which rows of the embeddings train, the guarantee that no other moves, and its proof.

    mask = row_mask(model, STAGES[3], base_vocab_size=32000)  # what trains; refuses what makes no sense
    frozen = freeze(model, mask)  # before the optimiser is built and the model is wrapped
    before = frozen.fingerprint()  # after the model is wrapped or sharded, before the first step
    ...  # train with any optimiser over model.parameters() that require gradients
    before.check(frozen.fingerprint())  # raises if anything frozen has changed
    frozen.remove()  # the model as it was, with the new rows in place

This package knows nothing of Axolotl: it needs torch, and the accessors `get_input_embeddings` and
`get_output_embeddings` of transformers. docs/frozen_rows.md says how it works and what it supports.

`masks` says which rows of a model train in a stage, `freezing` puts that into force and takes it off again, `modules`
holds trained rows apart from their matrix, `sharded` has what is particular to FSDP2 and ZeRO-3, `checksums` is the
proof, `rates` gives a matrix a learning rate of its own, and `training` is what a transformers Trainer needs besides.
"""

from eeve_axolotl.rows.checksums import Fingerprint, FrozenMovedError, fingerprint
from eeve_axolotl.rows.freezing import FrozenRows, freeze, optimizer_state_bytes
from eeve_axolotl.rows.masks import MatrixMask, RowMask, row_count, row_mask, untie
from eeve_axolotl.rows.rates import check_marks, give_rates, marks
from eeve_axolotl.rows.training import FrozenRowsMixin

__all__ = [
    "Fingerprint",
    "FrozenMovedError",
    "FrozenRows",
    "FrozenRowsMixin",
    "MatrixMask",
    "RowMask",
    "check_marks",
    "fingerprint",
    "freeze",
    "give_rates",
    "marks",
    "optimizer_state_bytes",
    "row_count",
    "row_mask",
    "untie",
]
