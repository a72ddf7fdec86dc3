"""The README of a corpus: what was read, kept, removed and chosen, how often new tokens occur, and a plot of that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus.arrays import numpy_of
from eeve_axolotl.corpus.manifest import Manifest
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.corpus.store import Tally
from eeve_axolotl.tables import escaped, markdown_table

PLOT = "new_tokens.png"
EXPECTED = "expected in {}"  # the column of tokens.parquet for a stage

# `datasets` caches a directory under its last name and a hash of this head, and of nothing else: without the
# description, every corpus in a directory of one name would be read as the first one was.
HEAD = """---
configs:
- config_name: default
  description: {identity}
  data_files:
  - split: train
    path: train/*.parquet
  - split: held_out
    path: held_out/*.parquet
---

"""

# The order in which documents meet what may take them away; each is the part of a reason before its colon.
ORDER = (
    *("length", "language", "fragments", "stopwords", "repetition", "perplexity"),
    *("boilerplate", "lines cut", "duplicates", "leaks", "held out"),
)

Groups = dict[str, dict[str, Any]]  # what each group of the mix gave, as the manifest has it


def text(
    settings: CorpusSettings,
    manifest: Manifest,
    tokens: pa.Table,
    tallies: list[Tally],
    spans: dict[str, tuple[int, int]],
) -> str:
    """The README, below its head.

    Args:
        manifest: of the corpus.
        tokens: a row for each new token, with a column for each stage (see EXPECTED).
        tallies: what the steps that drop documents counted, in their order.
        spans: where an epoch and each stage begin and stop to read, in tokens, by the name to show.
    """
    groups, unit, held_out = manifest["groups"], manifest["unit"], manifest["held_out"]
    parts = [
        "# Corpus",
        f"Tokenizer `{settings.tokenizer}`, {tokens.num_rows:,} new tokens. Budget {manifest['budget']:,.0f} {unit} of "
        f"at most {manifest['most']:,.0f} {unit} in this mix.",
        "## Mix",
        _mix(groups),
        f"Shares are of {unit}.",
        "## From read to chosen",
        _funnel(tallies, groups),
        "A filter sees what those above it left. Lines that were cut leave their document in place.",
        "### Examples of what was removed",
        _examples(tallies),
        "## New tokens",
        *_new_tokens(tokens),
        f"![Occurrences of new tokens]({PLOT})",
        "## Seen in training",
        *_seen(tokens, spans),
        "Every token's own numbers are in `tokens.parquet`.",
        "## Held out",
        _table(
            ["group", "documents", "MB"],
            (
                [name, f"{entry['documents']:,}", _megabytes(entry["bytes"])]
                for name, entry in held_out["groups"].items()
            ),
        ),
        f"{held_out['passages']:,} passages (runs of {dup.LEAK_WORDS} words, or whole lines of {dup.LEAK_LINE} to "
        f"{dup.LEAK_WORDS - 1}), of which {held_out['passages_in_train']:,} occur in the training shards. No held-out "
        "document is a near-duplicate of a training document.",
        "## Read it from Axolotl",
        _how_to_read(settings),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown_table(head, ([escaped(cell) for cell in row] for row in rows))


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _mix(groups: Groups) -> str:
    head = ["group", "rule", "asked", "given", "documents", "MB", "tokens", "new tokens", "drawn as it comes"]
    return _table(
        head,
        (
            [
                name,
                entry["rule"],
                f"{entry['asked']:.2%}",
                f"{entry['share']:.2%}",
                f"{entry['documents']:,}",
                _megabytes(entry["bytes"]),
                f"{entry['tokens']:,}",
                f"{entry['new_tokens']:,}",
                f"{entry['natural_share']:.1%}",
            ]
            for name, entry in groups.items()
        ),
    )


def _funnel(tallies: list[Tally], groups: Groups) -> str:
    """What each filter took away, and what it left: documents and bytes of each group."""
    body: list[list[str]] = []
    for name, entry in groups.items():
        reasons = {key: value for tally in tallies for key, value in tally.seen.get(name, {}).items()}
        documents, size = read = reasons.pop("read", [0, 0])
        reasons.pop("to choose from", None)
        body.append([name, "**read**", "", "", f"{documents:,}", _megabytes(size), "100 %"])
        for reason in sorted(reasons, key=lambda reason: (ORDER.index(reason.split(":")[0]), reason)):
            gone, less = reasons[reason]
            if "cut" not in reason:
                documents -= gone
            size -= less
            left = [f"{documents:,}", _megabytes(size), f"{size / read[1]:.2%}"]
            body.append([name, reason, f"{gone:,}", _megabytes(less), *left])
        share = f"{entry['bytes'] / read[1]:.2%}" if read[1] else ""
        chosen = [f"{entry['documents']:,}", _megabytes(entry["bytes"]), share]
        body.append([name, "**chosen**", "", "", *chosen])
    head = ["group", "what", "documents", "MB", "documents left", "MB left", "of the bytes read"]
    return _table(head, body)


def _examples(tallies: list[Tally]) -> str:
    found = [
        f"- {title}\n" + "\n".join(f"    - `{example.replace('`', ' ')}`" for example in examples)
        for tally in tallies
        for title, examples in sorted(tally.examples.items())
    ]
    return "\n".join(found) or "Nothing was removed."


def _new_tokens(tokens: pa.Table) -> list[str]:
    before, after = numpy_of(tokens["in_corpus"]), numpy_of(tokens["chosen"])
    if not len(before):
        return ["The tokenizer has no new tokens."]
    rarest = np.argsort(before, kind="stable")[: max(len(before) // 10, 1)]
    quantiles = {"least": 0, "1 in 100 below": 0.01, "1 in 10 below": 0.1, "median": 0.5}
    body = [
        [label, f"{np.quantile(before, q):,.0f}", f"{np.quantile(after, q):,.0f}"]
        for label, q in quantiles.items()
    ]
    body.append(["rarest tenth, all together", f"{before[rarest].sum():,}", f"{after[rarest].sum():,}"])
    parts = [_table(["occurrences of a new token", "in the corpus", "chosen"], body)]
    status, target = tokens["status"].to_pylist(), int(tokens["target"][0].as_py())
    if target:
        parts.append(
            f"Target {target:,} occurrences: {status.count('reached'):,} tokens reach it, "
            f"{status.count('short of budget'):,} would with more budget, and {status.count('short of text'):,} "
            "cannot from this corpus. Give more text for those, or leave out of the tokenizer what is too rare to be "
            "learned: `short_of_text.txt` lists them, rarest first, and is a file for the tokenizer's `deny`."
        )
    return parts


def _seen(tokens: pa.Table, spans: dict[str, tuple[int, int]]) -> list[str]:
    """Which part of the corpus an epoch and each stage read, and how often they see a new token."""
    body, epoch = [], max(1, next(iter(spans.values()))[1])
    for label, (start, end) in spans.items():
        column = EXPECTED.format(label)
        # An epoch sees each once.
        seen = numpy_of(tokens[column if column in tokens.column_names else "chosen"])
        quantiles = [f"{np.quantile(seen, q):,.1f}" if len(seen) else "" for q in (0, 0.1, 0.5)]
        body.append([label, f"{end - start:,}", f"{start / epoch:,.2f} to {end / epoch:,.2f}", *quantiles])
    parts = [_table(["stage", "tokens", "reads, in epochs", "least", "1 in 10 below", "median"], body)]
    if len(body) == 1:
        parts.append("Name the recipes under `stages` to see each stage's numbers.")
    else:
        stages = [*spans.values()][1:]
        read, all_of_them = max(end for _, end in stages), sum(end - start for start, end in stages)
        read = min(read, epoch)
        times = "once" if all_of_them <= read else f"{all_of_them / read:,.1f} times on average"
        parts.append(f"All stages together read {read / epoch:.0%} of the corpus, {times}.")
    return parts


def _how_to_read(settings: CorpusSettings) -> str:
    output, length = settings.output.rstrip("/"), settings.write.sequence_len
    if settings.write.read_as == "completion":
        block = f"datasets:\n  - path: {output}\n    type: completion\n    split: train\n"
    else:
        block = (
            f"pretraining_dataset:\n  - path: {output}\n    type: pretrain\n    split: train\n"
            "max_steps: 400  # streaming needs it\n"
        )
    held_out = f"test_datasets:\n  - path: {output}\n    type: completion\n    split: held_out\n"
    return f"```yaml\n{block}{held_out}sequence_len: {length}\nsample_packing: true\n```"


def plot(path: Path, tokens: pa.Table, choice: dict[str, Any]) -> None:
    """Draw how often new tokens occur before and after the choice, and what each group was asked for and gave."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before, after = numpy_of(tokens["in_corpus"]), numpy_of(tokens["chosen"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    if len(before):
        edges = np.concatenate([[0], np.geomspace(1, max(before.max(), 2) + 1, 40)])
        left.hist(before, edges, histtype="step", label="in the corpus")
        left.hist(after, edges, histtype="stepfilled", alpha=0.5, label="chosen")
        left.set_xscale("symlog")
        target = tokens["target"][0].as_py()
        if target:
            left.axvline(target, color="0.5", linestyle=":", label=f"target {target:,}")
        left.legend()
    left.set(xlabel="occurrences of a new token", ylabel="new tokens")
    names = list(choice["groups"])
    place = np.arange(len(names))
    right.bar(place - 0.2, [choice["groups"][name]["asked"] for name in names], 0.4, label="asked")
    right.bar(place + 0.2, [choice["groups"][name]["share"] for name in names], 0.4, label="given")
    right.set_xticks(place, names)
    right.set(ylabel=f"share of {choice['unit']}")
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
