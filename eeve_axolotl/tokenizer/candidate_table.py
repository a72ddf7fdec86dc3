"""`candidates.tsv`: every candidate with its count and why it was chosen or not, to curate from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer.counting.table import WordTable
from eeve_axolotl.tokenizer.rules import Candidate
from eeve_axolotl.tokenizer.spelling import BOUNDARY
from eeve_axolotl.tokenizer.words.base import letter_ranges
from eeve_axolotl.tokenizer.words.joined import JoinedWordSplitter

FILE = "candidates.tsv"
_READ = 20_000_000  # characters of the corpus that examples are looked for in
_AROUND = 15  # characters on each side


def write(path: Path, candidates: list[Candidate], table: WordTable, shards: Sequence[Shard]) -> None:
    """Write one line for each candidate, in the order of their merges.

    Columns:
        token: as people read it.
        count: how often the target tokenizer makes it; for one that was not chosen, how often it would be made with
            all candidates in.
        documents_at_most: how many documents have it, at most.
        decision: `chosen`, or why not.
        example: the most frequent word that has the token, where the corpus has that word first; of several words that are
            joined (words/joined.py) these alone.
    """
    words = _words(table, {candidate.word for candidate in candidates})
    alone = {word for word in words.values() if " " not in word}
    examples = _examples(shards, table.splitter.scripts, alone)
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        lines.write("token\tcount\tdocuments_at_most\tdecision\texample\n")
        for each in candidates:
            word = words.get(each.word, "")
            columns = [
                table.splitter.spelling.read(each.token),
                str(each.count),
                str(min(each.documents, table.documents)),
                each.reason or "chosen",
                examples.get(word, word),
            ]
            lines.write("\t".join(" ".join(column.split()) for column in columns) + "\n")


def _words(table: WordTable, rows: set[int]) -> dict[int, str]:
    """The letters of the words in some rows of the table, with spaces between several."""
    found: dict[int, str] = {}
    joined = isinstance(table.splitter, JoinedWordSplitter)
    first = 0
    for words, _ in table.batches():
        for row in range(first, first + len(words)):
            if row in rows:
                word = words[row - first]
                spans = table.splitter.spans(word)
                longest = max(spans, key=len, default="").lstrip(BOUNDARY)
                found[row] = word.replace(BOUNDARY, " ").strip() if joined and len(spans) > 1 else longest
        first += len(words)
    return found


def _examples(shards: Iterable[Shard], scripts: tuple[str, ...], wanted: set[str]) -> dict[str, str]:
    """Each of the wanted words with what stands around it, where the beginning of the corpus has it first."""
    letters = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in letter_ranges(scripts))
    run = re.compile(f"[{letters}]+")
    found: dict[str, str] = {}
    read = 0
    for shard in shards:
        for document in shard.documents():
            text = document.text
            read += len(text)
            for match in run.finditer(text):
                word = match[0]
                if word in wanted:
                    wanted.discard(word)
                    found[word] = text[max(0, match.start() - _AROUND) : match.end() + _AROUND]
            if not wanted or read > _READ:
                return found
    return found
