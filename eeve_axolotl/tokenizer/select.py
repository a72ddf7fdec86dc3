"""Which tokens to add: the card's steps 1 to 7, on a table of words.

Candidates come from an intermediate BPE tokenizer of the corpus's words, or from merges on top of the base's. What
is counted is what the target tokenizer really produces. What is too rare is dropped, what was dropped too early is
added again, and all is counted again, until nothing changes (search.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eeve_axolotl.logs import logger
from eeve_axolotl.tokenizer import continued, intermediate
from eeve_axolotl.tokenizer.base import extended_state
from eeve_axolotl.tokenizer.candidate_counts import CandidateCounter
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.letters import Letters, letters_of, unshared
from eeve_axolotl.tokenizer.rules import Selection, SelectionRules
from eeve_axolotl.tokenizer.search import Search
from eeve_axolotl.tokenizer.token_counts import unreachable

LOG = logger("tokenizer")


def select(state: dict, table: WordTable, rules: SelectionRules, superwords: Sequence[str] = ()) -> Selection:
    """Choose the new tokens for a base tokenizer (steps 1 to 7).

    Args:
        state: the base tokenizer's JSON.
        table: the corpus's words; its splitter is the base's.
        superwords: further candidates, whose merges come after all others; the table's words are joined where they lie.

    Raises EEVEError if nothing is frequent enough, if no vocabulary is the multiple that `rules` wants, or if
    `max_rounds` did not reach the fixpoint.
    """
    base = state["model"]["vocab"]
    spelling, curation = table.splitter.spelling, rules.curation
    letters = letters_of(state, table)
    if not rules.share_fragments:
        letters = unshared(letters, table.splitter)
    frequent = [letter for letter, count in letters.counts.items() if count >= rules.min_count]
    allowed = list(map(spelling.spell, curation.needed()))
    fragments = letters.needed([*frequent, *allowed])
    learned = _learn(state, table.weighed or table, rules, [*fragments, *frequent])
    # Letters first: merges need them.
    proposed = [
        token for token in dict.fromkeys([*fragments, *frequent, *learned, *allowed]) if token not in base
    ]
    refused = {
        token: reason
        for token in (*proposed, *superwords)
        if token not in fragments and (reason := curation.refusal(spelling.read(token)))
    }
    budget = rules.budget()
    # Merges in the order that they were learned, and more of them in place of those that are dropped.
    limit = len(proposed) if budget is None or rules.method == "eeve" else budget
    while True:
        kept = {*map(spelling.spell, curation.allow), *allowed, *fragments} - base.keys()
        counter = CandidateCounter(state, [*proposed[:limit], *superwords])
        selection = Search(counter, table, rules, letters, kept, refused).run()
        idle = set(fragments) - set(letters.needed(selection.tokens))
        if idle:
            # Fragments whose letters were all dropped lead nowhere: without them, and their places to others.
            without = _least_useful(idle, letters, budget)
            refused |= _reasons(without, letters)
            fragments = [fragment for fragment in fragments if fragment not in without]
            continue
        if blocked := set(_only_whole(state, selection.tokens, rules.first_id)) - kept:
            refused |= dict.fromkeys(
                blocked, "its merges do not make it, only a word that it is the whole of"
            )
            continue
        short = (budget or 0) - len(selection.tokens)
        if short < rules.multiple or limit >= len(proposed):
            selection.fragments = fragments
            if short >= rules.multiple:
                LOG.warning(
                    "%s of the %s tokens asked for were found: no other candidate occurs %s times and saves any",
                    f"{len(selection.tokens):,}", f"{budget:,}", f"{rules.min_count:,}",
                )  # fmt: skip
            return selection
        limit += short


def _only_whole(state: dict, tokens: list[str], first_id: int) -> list[str]:
    """Those of `tokens` that are produced only because a word that is a token needs no merges (`ignore_merges`).

    Not all programs know that rule: llama.cpp does for some bases. So a new token must come of its merges too.
    """
    if not state["model"].get("ignore_merges"):
        return []
    extended = extended_state(state, tokens, first_id)
    return unreachable({**extended, "model": {**extended["model"], "ignore_merges": False}}, tokens)


def _least_useful(idle: set[str], letters: Letters, budget: int | None) -> set[str]:
    """Those of the fragments to do without: all of a few; of many, which took the places of letters, half."""
    if budget is None or len(idle) <= budget // 50:
        return idle
    use = Counter(dict.fromkeys(idle, 0))
    for letter, needed in letters.fragments.items():
        for fragment in idle.intersection(needed):
            use[fragment] += letters.counts[letter]
    ranked = sorted(idle, key=lambda fragment: (use[fragment], fragment))
    return set(ranked[: -(-len(ranked) // 2)])


def _reasons(without: set[str], letters: Letters) -> dict[str, str]:
    """What must not be chosen without these fragments, with the reason: they themselves, and the letters they begin."""
    reasons = dict.fromkeys(without, "no letter that it begins is chosen")
    for letter, needed in letters.fragments.items():
        if not without.isdisjoint(needed):
            reasons[letter] = "its first bytes need tokens that pay for no letter"
    return reasons


def _learn(state: dict, table: WordTable, rules: SelectionRules, letters: list[str]) -> list[str]:
    """Candidates of several letters in the vocabulary's alphabet, in the order of their merges (steps 1 and 2)."""
    size, memory_mb = rules.intermediate_vocab_size, rules.memory_mb
    if rules.method == "continued":
        return continued.learn(state, table, letters, size, memory_mb)
    tokens = intermediate.learn(table, size, memory_mb)
    return [table.splitter.spelling.spell(token) for token in tokens if len(token) > 1]
