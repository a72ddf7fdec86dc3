"""What a selection of tokens is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.curation import Curation


@dataclass(frozen=True)
class SelectionRules:
    """Which candidates there are, and which of them may become tokens."""

    first_id: int
    """The id of the first new token: how many the base has."""

    new_tokens: int | None
    """How many to add at most; None for all that are frequent enough."""

    min_count: int
    """A token seen less often is dropped (card, step 5). A letter seen as often is added (step 6)."""

    intermediate_vocab_size: int
    """How many tokens the candidates are learned with (step 1)."""

    max_rounds: int
    """Cap on the rounds of counting (step 7)."""

    method: Literal["eeve", "continued"] = "eeve"
    """Where candidates come from: an intermediate tokenizer, or merges learned on top of the base's."""

    share_fragments: bool = False
    """Add letters of a byte-level base even where this changes the tokens of other text."""

    memory_mb: int | None = None
    """Learn candidates from the most frequent words, as many as fit; None for all."""

    curation: Curation = field(default_factory=Curation)
    """What a person allows and refuses."""

    multiple: int = 1
    """Fewer are added, so that base and new tokens together are a multiple of this."""

    threads: int = 1
    """How many count."""

    def budget(self) -> int | None:
        """How many tokens to add at most, so that the vocabulary is a multiple; None for no limit.

        Raises EEVEError if there is no such number.
        """
        if self.new_tokens is None:
            return None
        rounded = self.new_tokens - (self.first_id + self.new_tokens) % self.multiple
        if rounded <= 0:
            raise EEVEError(
                f"no vocabulary of {self.first_id + 1:,} to {self.first_id + self.new_tokens:,} tokens is a multiple "
                f"of {self.multiple}; raise new_tokens or lower round_vocab_to"
            )
        return rounded


@dataclass(frozen=True)
class Candidate:
    """What became of one candidate.

    Its counts are those under the target tokenizer if it was chosen, else those with all candidates in.
    """

    token: str
    """In the vocabulary's alphabet."""

    count: int
    """How often it occurs."""

    documents: int
    """In how many documents, at most."""

    reason: str | None
    """Why it was not chosen; None if it was."""

    word: int
    """The most frequent word that has it: a row of the table, -1 for none."""


@dataclass
class Selection:
    """The tokens that were chosen, and how."""

    tokens: list[str]
    """In the order of their ids, in the vocabulary's alphabet."""

    counts: dict[str, int]
    """How often the target tokenizer makes each."""

    rounds: list[dict] = field(default_factory=list)
    """What each round did: its number, tokens, how many were added and dropped, tokens of all words."""

    candidates: list[Candidate] = field(default_factory=list)
    """All of them, in the order of their merges."""

    fragments: list[str] = field(default_factory=list)
    """Those of the tokens that begin a letter and do not end it (byte-level bases)."""
