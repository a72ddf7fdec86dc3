"""Tell of a corpus that is whole, for people (README and plot) and for programs (the manifest); then move it into place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus import readme
from eeve_axolotl.corpus.arrays import array_of, numpy_of
from eeve_axolotl.corpus.manifest import HELD_OUT, TRAIN, Manifest, read_manifest, tokenizer_identity
from eeve_axolotl.corpus.origin import made_of
from eeve_axolotl.corpus.plan import Plan
from eeve_axolotl.corpus.store import Tally, records, table_of
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import replacing, sha256, write_json, write_text
from eeve_axolotl.records import CHOICE, CORPUS_MANIFEST, read_there
from eeve_axolotl.secrets import redacted
from eeve_axolotl.version import __version__

_BESIDE = (CORPUS_MANIFEST, "tokens.parquet", "README.md", "short_of_text.txt", readme.PLOT)  # the shards


def publish(plan: Plan) -> None:
    """Write manifest, table of new tokens, README and plot beside the shards, and move all into place."""
    staging, output = Path(plan.staging), Path(plan.settings.output)
    choice = read_there(plan.folder("choice") / "choice.json", CHOICE)
    epoch = sum(entry["tokens"] for entry in choice["groups"].values())
    stages = plan.text_spans(epoch)
    tokens = _with_stages(table_of(plan.folder("choice") / "tokens.parquet"), stages, epoch)
    pq.write_table(tokens, staging / "tokens.parquet")
    tallies = [Tally.merged(plan.files(step, ".json")) for step in ("filter", "documents", "counts")]
    manifest = _manifest(plan, staging, choice, tallies)
    write_json(staging / CORPUS_MANIFEST, manifest)
    readme.plot(staging / readme.PLOT, tokens, choice)
    identity = hashlib.sha256(json.dumps(manifest["shards"], sort_keys=True).encode()).hexdigest()
    text = readme.text(plan.settings, manifest, tokens, tallies, {"one epoch": (0, epoch), **stages})
    # Under this name, and with this head, `datasets` (and so Axolotl) knows which files are which split.
    write_text(staging / "README.md", readme.HEAD.format(identity=identity) + text)
    write_text(staging / "short_of_text.txt", _short_of_text(tokens))
    if output.exists():
        if not plan.settings.overwrite:
            raise EEVEError(f"{output} exists already; give another `output`, or set `overwrite: true`")
        if not (output / CORPUS_MANIFEST).is_file() and any(output.iterdir()):
            raise EEVEError(
                f"{output} is not a corpus of ours, so it is not overwritten; give another `output`"
            )
    with replacing(output, _ours(output)) as directory:
        directory.rmdir()
        shutil.move(staging, directory)  # a rename, unless `output` leads to another disk


def _ours(output: Path) -> Callable[[Path], bool]:
    """Tells what of a corpus's directory was written with it: what we name so, and directories of its shards alone."""
    files = {output / name for name in (read_manifest(output) or {}).get("shards") or {}}

    def ours(path: Path) -> bool:
        if path.is_dir() and not path.is_symlink():
            return all(output / path.name / each.relative_to(path) in files for each in path.rglob("*"))
        return path.name in _BESIDE

    return ours


def _manifest(plan: Plan, staging: Path, choice: dict[str, Any], tallies: list[Tally]) -> Manifest:
    settings = plan.settings
    shards = sorted(staging.glob("*/*.parquet"))
    return {
        "version": __version__,
        "libraries": {name: version(name) for name in ("datatrove", "tokenizers", "pyarrow")},
        "tokenizer": {
            "directory": settings.tokenizer,
            "identity": tokenizer_identity(settings.tokenizer),
            "base_vocab_size": plan.base_vocab_size,
        },
        "longest_record": settings.write.longest_record,
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
        "made_of": made_of(settings),
        "settings": redacted(settings.model_dump(mode="json")),
    }


def _held_out(staging: Path) -> dict[str, Any]:
    """Held-out documents and bytes per group, and how many of their passages occur in the training shards: none."""
    held = [row for file in sorted((staging / HELD_OUT).glob("*.parquet")) for row in records(file)]
    found: dict[str, Any] = {"groups": {}}
    for row in held:
        entry = found["groups"].setdefault(row["group"], {"documents": 0, "bytes": 0})
        entry["documents"] += 1
        entry["bytes"] += len(row["text"].encode())
    passages = dup.all_passages(row["text"] for row in held)
    found["passages"] = len(passages)
    secret = dup.passage_set(passages)
    found["passages_in_train"] = len(passages) and sum(
        dup.shared_passages(row["text"], secret)
        for shard in sorted((staging / TRAIN).glob("*.parquet"))
        for row in records(shard, ["text"])
    )
    return found


def _short_of_text(tokens: pa.Table) -> str:
    """The tokens that cannot reach the target from this corpus, rarest first: a `deny` list for the tokenizer."""
    short = [row for row in tokens.to_pylist() if row["status"] == "short of text"]
    short.sort(key=lambda row: row["in_corpus"])  # of equals, the one with the lower id stays first
    return "".join(f"{row['token']}  # {row['in_corpus']:,} in the corpus\n" for row in short)


def _with_stages(tokens: pa.Table, stages: dict[str, tuple[int, int]], epoch: int) -> pa.Table:
    """`tokens` with a column for each of `stages`: how often it is expected to see each token.

    That is the token's occurrences in the corpus times the stage's tokens, divided by the corpus's (`epoch`).
    """
    for label, (start, end) in stages.items():
        seen = numpy_of(tokens["chosen"]) * ((end - start) / epoch)
        tokens = tokens.append_column(readme.EXPECTED.format(label), array_of(seen, pa.float64()))
    return tokens
