"""`candidates.tsv`: every candidate with its count and why it was chosen or not, to curate from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from eeve_axolotl.sources import Shard
from eeve_axolotl.tokenizer.counting import WordTable
from eeve_axolotl.tokenizer.select import Candidate
from eeve_axolotl.tokenizer.words import BOUNDARY, letter_ranges

FILE = "candidates.tsv"
_READ = 20_000_000  # characters of the corpus that examples are looked for in
_AROUND = 15  # characters on each side


def write(path: Path, candidates: list[Candidate], table: WordTable, shards: list[Shard]) -> None:
    """Write one line for each candidate, in the order of their merges.

    Columns: token; count, as the target tokenizer makes it (of one that was not chosen: with all
    candidates in); documents, at most; `chosen`, or why not; the most frequent word that has the token,
    where the corpus has it first.
    """
    words = _words(table, {candidate.word for candidate in candidates})
    examples = _examples(shards, table.segmentation.scripts, set(words.values()))
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        lines.write("token\tcount\tdocuments_at_most\tdecision\texample\n")
        for each in candidates:
            word = words.get(each.word, "")
            columns = [
                table.segmentation.spelling.read(each.token),
                str(each.count),
                str(min(each.documents, table.documents)),
                each.reason or "chosen",
                examples.get(word, word),
            ]
            lines.write("\t".join(" ".join(column.split()) for column in columns) + "\n")


def _words(table: WordTable, rows: set[int]) -> dict[int, str]:
    """The letters of the words in some rows of the table."""
    found, first = {}, 0
    for words, _ in table.batches():
        for row in range(first, first + len(words)):
            if row in rows:
                spans = table.segmentation.spans(words[row - first])
                found[row] = max(spans, key=len, default="").lstrip(BOUNDARY)
        first += len(words)
    return found


def _examples(shards: Iterable[Shard], scripts: tuple[str, ...], wanted: set[str]) -> dict[str, str]:
    """Each of the wanted words between what stands around it first, in the beginning of the corpus."""
    letters = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in letter_ranges(scripts))
    run, found, read = re.compile(f"[{letters}]+"), {}, 0
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
