"""The seven stages of EEVE as one table of data (paper section 2.3 and figure 4; model card).

A stage is three words: which rows of the input embeddings train, which rows of the output
embeddings train, and how the internal layers train. A stage number is only a name for such a
triple, so a stage of one's own is written with the same three words.

This module knows nothing of Axolotl and nothing of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Rows(str, Enum):
    """Which rows of an embedding matrix train."""

    NONE = "none"
    NEW = "new"  # the rows from `base_vocab_size` on
    ALL = "all"


class Layers(str, Enum):
    """How the internal layers (everything but the two embedding matrices) train."""

    FROZEN = "frozen"
    QLORA = "qlora"
    FULL = "full"


@dataclass(frozen=True)
class Stage:
    """What trains in one stage; `name` is what logs and records call it."""

    name: str
    input_embeddings: Rows
    output_embeddings: Rows
    internal_layers: Layers
    purpose: str = ""

    @property
    def trains_new_rows_only(self) -> bool:
        """Whether some matrix trains its new rows and keeps its old ones."""
        return Rows.NEW in (self.input_embeddings, self.output_embeddings)

    @property
    def backward_through_layers(self) -> bool:
        """Whether a gradient must reach the internal layers, be it to pass through them only.

        False for stages 2 and 4: only the output embeddings train, and the paper notes that
        they need no backpropagation through the other layers.
        """
        return self.internal_layers is not Layers.FROZEN or self.input_embeddings is not Rows.NONE

    @property
    def needs_two_matrices(self) -> bool:
        """Whether it treats input and output embeddings so differently that they cannot be one matrix.

        "None" and "all" (stage 4) can: all rows of the one matrix train.
        """
        inputs, outputs = self.input_embeddings, self.output_embeddings
        return inputs is not outputs and (inputs, outputs) != (Rows.NONE, Rows.ALL)

    def refuses_one_matrix(self) -> str:
        """What is told where a stage that needs two matrices meets a model that has one."""
        return (
            f"Stage {self.name} trains the input and the output embeddings differently, but this model ties them "
            "into one matrix: use stages 3, 4 (which then trains all rows of both), 6 and 7, or set "
            "`eeve.untie: true` to give the model two matrices."
        )

    @property
    def trains_anything(self) -> bool:
        """Whether anything trains at all."""
        return self.backward_through_layers or self.output_embeddings is not Rows.NONE

    def trains_in_words(self) -> str:
        """What trains, in few words: "new input + all output + layers"."""
        words = [
            f"{which.value} {name}"
            for which, name in ((self.input_embeddings, "input"), (self.output_embeddings, "output"))
            if which is not Rows.NONE
        ]
        return " + ".join(words + (["layers"] if self.internal_layers is not Layers.FROZEN else []))


def _stage(number: int, inputs: str, outputs: str, layers: str, purpose: str) -> Stage:
    return Stage(str(number), Rows(inputs), Rows(outputs), Layers(layers), purpose)


# The paper's figure 4, row by row. The card's code sample is stage 5.
STAGES: dict[int, Stage] = {
    1: _stage(1, "new", "none", "frozen", "read whole new tokens while still predicting their first subword"),
    2: _stage(2, "none", "new", "frozen", "tell apart new tokens that share a hidden state"),
    3: _stage(3, "new", "new", "frozen", "align the new rows of both matrices"),
    4: _stage(4, "none", "all", "frozen", "bring old and new logits to one scale"),
    5: _stage(5, "new", "all", "frozen", "predict any token of the whole vocabulary"),
    6: _stage(6, "all", "all", "qlora", "optimise everything, with adapters to keep the base's abilities"),
    7: _stage(7, "none", "none", "qlora", "cool down: the internal layers alone"),
}
