"""What our files are called, and how to tell that a stage is done."""

from __future__ import annotations

import functools
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from eeve_axolotl.files import read_json_if_there, sha256

# Beside a stage's weights.
RECORD = "eeve_stage.json"  # written last: its presence says "done"
HISTORY = "eeve_history.json"  # loss by step, and what the stage cost
FAILED = "eeve_stage.failed.json"  # the evidence, where something frozen has changed
OPTIMIZER = "eeve_optimizer.pt"  # with `keep_optimizer`, the state that the next stage goes on with

# In the output of a run of one stage, and in `CHECKPOINTS`/stageN of a run of several.
CHECKPOINT = "checkpoint"  # transformers' name: checkpoint-STEP
CHECKPOINTS = "checkpoints"
WHOLE = "eeve_whole"  # in a checkpoint that was written to its end

MARK = "eeve_axolotl"  # the key in the config.json of a model whose rows we extended

TOKENIZER_MANIFEST = "eeve_tokenizer.json"  # beside a tokenizer that `axolotl eeve tokenizer` built
WORK = "eeve_counts"  # in a tokenizer's `work_directory`: what is ours there
WORK_MARKER = "eeve_counts.lock"  # in it; held by the build that is at work
CORPUS_MANIFEST = "eeve_corpus.json"  # beside the shards that `axolotl eeve corpus` wrote

# In a chain's output.
CHAIN = "eeve_pipeline.json"  # which runs and stages it has
RUNS = "runs"  # a JSON file for each finished run: what it depended on
EVALUATION = "evaluation"  # a JSON file for each evaluated model


# What Axolotl, transformers and we write beside a model's weights or a tokenizer.
_OURS = (
    "model*.safetensors", "model.safetensors.index.json", "pytorch_model*", "adapter_*", "config.json",
    "generation_config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "additional_chat_templates", "vocab.json", "merges.txt", "training_args.bin",
    "trainer_state.json", "eeve_*", "candidates.tsv", "report", ".*.unfinished",
)  # fmt: skip
_CARDS = (  # how the model cards begin that Axolotl and `axolotl eeve report` write
    "<!-- This model card has been generated automatically", "<!-- Written by `axolotl eeve report`"
)  # fmt: skip


def is_ours(path: Path) -> bool:
    """Whether a file beside weights or a tokenizer is one that we or Axolotl wrote, by its name; a card, by its text."""
    if path.name == "README.md":
        text = path.read_text(encoding="utf-8", errors="replace")
        return any(head in text for head in _CARDS)
    return any(fnmatch(path.name, pattern) for pattern in _OURS)


def stage_directory(output: Path, stage: str) -> Path:
    """Where a run of several stages keeps a finished one's weights; the last one's are in `output` itself."""
    return output / f"stage{stage}"


def checkpoints_directory(output: Path, stage: str) -> Path:
    """Where a run of several stages keeps a stage's checkpoints."""
    return output / CHECKPOINTS / f"stage{stage}"


def last_whole_checkpoint(directory: Path) -> str | None:
    """The newest checkpoint in `directory` that was written to its end, or None."""
    found = [path.parent for path in directory.glob(f"{CHECKPOINT}-*/{WHOLE}")]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def read_record(directory: str | Path) -> dict[str, Any] | None:
    """The record of a stage that is done, or None: no record, or weights that are not those it names."""
    record = read_json_if_there(Path(directory) / RECORD)
    return record if record and record.get("weights") == weights_sha256(directory) else None


def weights_sha256(directory: str | Path) -> dict[str, str]:
    """SHA-256 of every weights file in `directory`, by name; a file is read again only if it has changed."""
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        at = path.stat()
        found[path.name] = _sha256(path, at.st_size, at.st_mtime_ns)
    return found


@functools.lru_cache(maxsize=1000)
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256(path)
