"""What became of the corpus, for people (Markdown and plots) and for programs (the manifest); then publishing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

import eeve_axolotl
from eeve_axolotl.args import EEVESettings
from eeve_axolotl.batch import steps_for
from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.corpus.steps import Plan, longest_record
from eeve_axolotl.corpus.store import Tally, rows
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import read_json, sha256, write_json
from eeve_axolotl.records import CORPUS_MANIFEST
from eeve_axolotl.settings import explain, read_mapping

# `datasets` caches a directory under its last name and a hash of this head, and of nothing else: without the
# description, every corpus in a directory of one name would be read as the first one was.
CARD = """---
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


def publish(plan: Plan) -> None:
    """Write manifest, table of new tokens, report and plots beside the shards, and move all into place."""
    staging, output = Path(plan.staging), Path(plan.settings.output)
    choice = read_json(plan.folder("choice") / "choice.json")
    tokens = _with_stages(plan, pq.read_table(plan.folder("choice") / "tokens.parquet"), choice["groups"])
    pq.write_table(tokens, staging / "tokens.parquet")
    tallies = [Tally.merged(plan.files(step, ".json")) for step in ("filter", "documents", "counts")]
    manifest = _manifest(plan, staging, choice, tallies)
    write_json(staging / CORPUS_MANIFEST, manifest)
    _plots(staging, tokens, choice)
    identity = hashlib.sha256(json.dumps(manifest["shards"], sort_keys=True).encode()).hexdigest()
    card = CARD.format(identity=identity)
    # Under this name, and with this head, `datasets` (and so Axolotl) knows which files are which split.
    (staging / "README.md").write_text(card + _markdown(plan, manifest, tokens, tallies), encoding="utf-8")
    (staging / "short_of_text.txt").write_text(_short_of_text(tokens), encoding="utf-8")
    if output.exists():
        if not plan.settings.overwrite:
            raise EEVEError(f"{output} exists already; give another `output`, or set `overwrite: true`")
        if not (output / CORPUS_MANIFEST).is_file() and any(output.iterdir()):
            raise EEVEError(
                f"{output} is not a corpus of ours, so it is not overwritten; give another `output`"
            )
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staging, output)


def _manifest(plan: Plan, staging: Path, choice: dict, tallies: list[Tally]) -> dict:
    settings = plan.settings
    shards = sorted(staging.glob("*/*.parquet"))
    return {
        "version": eeve_axolotl.__version__,
        "libraries": {name: version(name) for name in ("datatrove", "tokenizers", "pyarrow")},
        "tokenizer": {
            "directory": settings.tokenizer,
            "identity": tokenizer_identity(settings.tokenizer),
            "base_vocab_size": plan.base_vocab_size,
        },
        "longest_record": longest_record(settings),
        "unit": choice["unit"],
        "budget": choice["budget"],
        "most": choice["most"],
        "groups": choice["groups"],
        "held_out": _held_out(staging),
        "steps": {
            step: tally.seen for step, tally in zip(("filter", "boilerplate", "score"), tallies, strict=True)
        },
        "shards": {
            str(shard.relative_to(staging)): {
                "documents": pq.read_metadata(shard).num_rows,
                "sha256": sha256(shard),
            }
            for shard in shards
        },
        "settings": settings.model_dump(mode="json"),
    }


def _held_out(staging: Path) -> dict:
    """Held-out documents and bytes per group, and how many of their passages occur in the training shards: none."""
    held = list(rows(staging / "held_out" / "00000.parquet"))
    found: dict = {"groups": {}}
    for row in held:
        entry = found["groups"].setdefault(row["group"], {"documents": 0, "bytes": 0})
        entry["documents"] += 1
        entry["bytes"] += len(row["text"].encode())
    passages = dup.all_passages(row["text"] for row in held)
    found["passages"] = len(passages)
    found["passages_in_train"] = len(passages) and sum(
        int(dup.contains(passages, np.unique(dup.passages(row["text"]))).sum())
        for shard in sorted((staging / "train").glob("*.parquet"))
        for row in rows(shard, ["text"])
    )
    return found


def _table(head: list[str], body: Iterable[Iterable]) -> str:
    def line(cells: Iterable) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line("---" for _ in head), *(line(row) for row in body)]) + "\n"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _markdown(plan: Plan, manifest: dict, tokens: pa.Table, tallies: list[Tally]) -> str:
    settings, unit = plan.settings, manifest["unit"]
    groups = manifest["groups"]
    parts = [
        "# Corpus\n",
        f"Tokenizer `{settings.tokenizer}`, {tokens.num_rows:,} new tokens. Budget {manifest['budget']:,.0f} {unit} of "
        f"at most {manifest['most']:,.0f} {unit} in this mix.\n",
        "## Mix\n",
        _table(
            [
                "group",
                "rule",
                "asked",
                "given",
                "documents",
                "MB",
                "tokens",
                "new tokens",
                "drawn as it comes",
            ],
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
        ),
        f"Shares are of {unit}.\n",
        "## From read to chosen\n",
        _funnel(tallies, groups),
        "A filter sees what those above it left. Lines that were cut leave their document in place.\n",
        "### Examples of what was removed\n",
        *_examples(tallies),
        "## New tokens\n",
        *_new_tokens(tokens),
        "![Occurrences of new tokens](new_tokens.png)\n",
        "## Seen in training\n",
        _seen(plan, tokens, groups),
        "Every token's own numbers are in `tokens.parquet`.\n",
        "## Held out\n",
        _table(
            ["group", "documents", "MB"],
            (
                [name, f"{entry['documents']:,}", _megabytes(entry["bytes"])]
                for name, entry in manifest["held_out"]["groups"].items()
            ),
        ),
        f"{manifest['held_out']['passages']:,} passages (runs of {dup.LEAK_WORDS} words, or whole lines of "
        f"{dup.LEAK_LINE} to {dup.LEAK_WORDS - 1}), of which {manifest['held_out']['passages_in_train']:,} occur in "
        "the training shards. No held-out document is a near-duplicate of a training document.\n",
        "## Read it from Axolotl\n",
        _how_to_read(plan),
    ]
    return "\n".join(parts)


# The order in which documents meet what may take them away; each is the part of a reason before its colon.
ORDER = (
    *("length", "language", "fragments", "stopwords", "repetition", "perplexity"),
    *("boilerplate", "lines cut", "duplicates", "leaks", "held out"),
)


def _funnel(tallies: list[Tally], groups: dict) -> str:
    """What each filter took away, and what it left: documents and bytes of each group."""
    body = []
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
            share = f"{size / read[1]:.2%}"
            body.append(
                [name, reason, f"{gone:,}", _megabytes(less), f"{documents:,}", _megabytes(size), share]
            )
        share = f"{entry['bytes'] / read[1]:.2%}" if read[1] else ""
        chosen = [f"{entry['documents']:,}", _megabytes(entry["bytes"]), share]
        body.append([name, "**chosen**", "", "", *chosen])
    head = ["group", "what", "documents", "MB", "documents left", "MB left", "of the bytes read"]
    return _table(head, body)


def _examples(tallies: list[Tally]) -> list[str]:
    found = [
        f"- {title}\n" + "\n".join(f"    - `{example.replace('`', ' ')}`" for example in examples)
        for tally in tallies
        for title, examples in sorted(tally.examples.items())
    ]
    return [*found, ""] if found else ["Nothing was removed.\n"]


def _new_tokens(tokens: pa.Table) -> list[str]:
    before, after = tokens["in_corpus"].to_numpy(), tokens["chosen"].to_numpy()
    if not len(before):
        return ["The tokenizer has no new tokens.\n"]
    rarest = np.argsort(before, kind="stable")[: max(len(before) // 10, 1)]
    target = int(tokens["target"][0].as_py())
    lines = [
        _table(
            ["occurrences of a new token", "in the corpus", "chosen"],
            [
                [label, f"{np.quantile(before, q):,.0f}", f"{np.quantile(after, q):,.0f}"]
                for label, q in (
                    ("least", 0),
                    ("1 in 100 below", 0.01),
                    ("1 in 10 below", 0.1),
                    ("median", 0.5),
                )
            ]
            + [["rarest tenth, all together", f"{before[rarest].sum():,}", f"{after[rarest].sum():,}"]],
        )
    ]
    status = tokens["status"].to_pylist()
    if target:
        lines.append(
            f"Target {target:,} occurrences: {status.count('reached'):,} tokens reach it, "
            f"{status.count('short of budget'):,} would with more budget, and {status.count('short of text'):,} "
            "cannot from this corpus. Give more text for those, or leave out of the tokenizer what is too rare to be "
            "learned: `short_of_text.txt` lists them, rarest first, and is a file for the tokenizer's `deny`.\n"
        )
    return lines


def _short_of_text(tokens: pa.Table) -> str:
    """The tokens that cannot reach the target from this corpus, rarest first: a `deny` list for the tokenizer."""
    short = [row for row in tokens.to_pylist() if row["status"] == "short of text"]
    short.sort(key=lambda row: row["in_corpus"])  # of equals, the one with the lower id stays first
    return "".join(f"{row['token']}  # {row['in_corpus']:,} in the corpus\n" for row in short)


def _with_stages(plan: Plan, tokens: pa.Table, groups: dict) -> pa.Table:
    """`tokens` with a column for each stage of the recipes: how often it is expected to see each token.

    That is the token's share of the corpus times the stage's tokens.
    """
    epoch = sum(entry["tokens"] for entry in groups.values())
    for label, budget in _stages(plan, epoch).items():
        seen = tokens["chosen"].to_numpy() * (budget / epoch)
        tokens = tokens.append_column(f"expected in {label}", pa.array(seen, pa.float64()))
    return tokens


def _stages(plan: Plan, epoch: int) -> dict[str, int]:
    wanted = plan.settings.stages
    return {
        label: budget
        for recipe in wanted.recipes
        for label, budget in stage_tokens(recipe, wanted.gpus, epoch).items()
    }


def _seen(plan: Plan, tokens: pa.Table, groups: dict) -> str:
    epoch = sum(entry["tokens"] for entry in groups.values())
    body = [["one epoch", f"{epoch:,}", *_quantiles(tokens["chosen"].to_numpy())]]
    for label, budget in _stages(plan, epoch).items():
        body.append([label, f"{budget:,}", *_quantiles(tokens[f"expected in {label}"].to_numpy())])
    note = "" if len(body) > 1 else "\nName the recipes under `stages` to see each stage's numbers.\n"
    return _table(["stage", "tokens", "least", "1 in 10 below", "median"], body) + note


def _quantiles(values: np.ndarray) -> list[str]:
    return [f"{np.quantile(values, q):,.1f}" if len(values) else "" for q in (0, 0.1, 0.5)]


def stage_tokens(recipe: str | Path, gpus: int, epoch: int) -> dict[str, int]:
    """Tokens that each stage of an Axolotl recipe trains on, by a name for the stage.

    Its `max_steps` and `max_tokens` decide, whichever ends it first; without them, `num_epochs` of `epoch` tokens.
    Raises EEVEError for a recipe that cannot be read.
    """
    cfg = read_mapping(recipe)
    try:
        block = EEVESettings.model_validate(cfg["eeve"]) if cfg.get("eeve") else None
    except ValidationError as error:
        raise EEVEError(explain(error, f"{recipe}, eeve")) from None
    schedule = block.schedule() if block else [None]
    budgets = {}
    for each in schedule:
        batch = block and block.global_batch_size
        if not batch:
            micro_batch = (each and each.micro_batch_size) or cfg.get("micro_batch_size") or 1
            own = each and each.gradient_accumulation_steps
            batch = micro_batch * (own or cfg.get("gradient_accumulation_steps") or 1) * gpus
        a_step = batch * int(cfg.get("sequence_len") or 512)
        steps = [(each and each.max_steps) or cfg.get("max_steps")]
        steps.append(each and each.max_tokens and steps_for(each.max_tokens, a_step))
        limits = [int(count) * a_step for count in steps if count]
        name = Path(recipe).name + (f", stage {each.resolved().name}" if len(schedule) > 1 else "")
        budgets[name] = min(limits) if limits else round(float(cfg.get("num_epochs") or 1) * epoch)
    return budgets


def _how_to_read(plan: Plan) -> str:
    output, length = plan.settings.output.rstrip("/"), plan.settings.write.sequence_len
    if plan.settings.write.read_as == "completion":
        block = f"datasets:\n  - path: {output}\n    type: completion\n    split: train\n"
    else:
        block = (
            f"pretraining_dataset:\n  - path: {output}\n    type: pretrain\n    split: train\n"
            "max_steps: 400  # streaming needs it\n"
        )
    held_out = f"test_datasets:\n  - path: {output}\n    type: completion\n    split: held_out\n"
    return f"```yaml\n{block}{held_out}sequence_len: {length}\nsample_packing: true\n```\n"


def _plots(staging: Path, tokens: pa.Table, choice: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before, after = tokens["in_corpus"].to_numpy(), tokens["chosen"].to_numpy()
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
    figure.savefig(staging / "new_tokens.png", dpi=120)
    plt.close(figure)
