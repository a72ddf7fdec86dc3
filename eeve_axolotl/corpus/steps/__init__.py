"""The steps from text to shards, as datatrove pipeline steps: each reads files, writes files, and can be run anywhere.

A step's task is known by its rank; tasks of the same rank work on the same input piece from reading to
splitting. What is global (repeated lines, clusters of duplicates, the choice) is a step of one task.
"""

from eeve_axolotl.corpus.steps.base import Step
from eeve_axolotl.corpus.steps.choose import Choose
from eeve_axolotl.corpus.steps.count import Passages, Score
from eeve_axolotl.corpus.steps.deduplicate import (
    MINHASH,
    CutLines,
    RepeatedLines,
    Roles,
    buckets,
    clusters,
    signatures,
)
from eeve_axolotl.corpus.steps.filter import Filter, Learn, group_filters
from eeve_axolotl.corpus.steps.write import Publish, Shuffle, Split

__all__ = [
    "MINHASH",
    "Choose",
    "CutLines",
    "Filter",
    "Learn",
    "Passages",
    "Publish",
    "RepeatedLines",
    "Roles",
    "Score",
    "Shuffle",
    "Split",
    "Step",
    "buckets",
    "clusters",
    "group_filters",
    "signatures",
]
