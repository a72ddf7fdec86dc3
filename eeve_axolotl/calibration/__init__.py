"""`axolotl eeve start`: new output rows that suit the text, before any training.

A new token's output row is made of its first subword's, so it begins with that subword's logit. But thousands of tokens
share a first subword, and each of them is rarer than it. Here one forward pass over text tells how often each token comes
and in which state of the layers, and the rows are fitted to that. This is ours; it was not published.

command: `axolotl eeve start` itself, and where it may write
states: what the model makes of the text, and which documents are kept to choose on
output_rows: the starts that are tried on a model, and which of them it keeps
regression: the fit
"""

from eeve_axolotl.calibration.command import start, told
from eeve_axolotl.calibration.output_rows import Calibrated, NewRows, calibrate, logits_of, new_rows
from eeve_axolotl.calibration.states import States, documents, read

__all__ = [
    "Calibrated",
    "NewRows",
    "States",
    "calibrate",
    "documents",
    "logits_of",
    "new_rows",
    "read",
    "start",
    "told",
]
