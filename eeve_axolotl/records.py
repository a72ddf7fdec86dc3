"""What our files are called, and how to tell that a stage is done."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from eeve_axolotl import kinds
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import LEFT_BY_A_KILL, read_json_if_there, sha256, write_json, writing

# Beside a stage's weights.
RECORD = "eeve_stage.json"  # written last: its presence says "done"
HISTORY = "eeve_history.json"  # loss by step, and what the stage cost
FAILED = "eeve_stage.failed.json"  # the evidence, where something frozen has changed
OPTIMIZER = "eeve_optimizer.pt"  # with `keep_optimizer`, the state that the next stage goes on with

# In the output of a run of one stage, and in `CHECKPOINTS`/stageN of a run of several.
CHECKPOINT = "checkpoint"  # transformers' name: checkpoint-STEP
CHECKPOINTS = "checkpoints"
TEXT = "eeve_text.json"  # in a checkpoint: which part of the text is read
WHOLE = "eeve_whole"  # in a checkpoint that was written to its end

CONFIG = "config.json"  # a model's
MARK = "eeve_axolotl"  # the key in the config.json of a model whose rows we extended

TOKENIZER_MANIFEST = "eeve_tokenizer.json"  # beside a tokenizer that `axolotl eeve tokenizer` built
START = "eeve_start.json"  # beside a model that `axolotl eeve start` wrote
SENTENCEPIECE_MODEL = "tokenizer.model"  # the same tokens, for programs that read nothing else (llama.cpp)
WORK = "eeve_counts"  # in a tokenizer's `work_directory`: what is ours there
WORK_MARKER = "eeve_counts.lock"  # in it; held by the build that is at work
CORPUS_MANIFEST = "eeve_corpus.json"  # beside the shards that `axolotl eeve corpus` wrote

# In a chain's output.
CHAIN = "eeve_pipeline.json"  # which runs and stages it has
RUNS = "runs"  # a JSON file for each finished run: what it depended on
STARTED = "start.json"  # the same of the model that `start` has made
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


def holds_a_model(directory: Path) -> bool:
    """Whether a directory has weights in it, of a model or an adapter: a manifest there is a copy that travelled on."""
    return any(
        fnmatch(path.name, pattern)
        for path in directory.iterdir()
        for pattern in ("*.safetensors", "pytorch_model*", "adapter_config.json", RECORD)
    )


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


@dataclass(frozen=True)
class Kind:
    """A kind of JSON file of ours: what it holds, and how to have it written again."""

    shape: type[kinds.Shape]
    remedy: str


EMBEDDINGS = ("input_embeddings", "output_embeddings")
INTERNAL_LAYERS = "internal_layers"
"""Parts of a model, as records name them."""

STAGE_RECORD = Kind(kinds.WholeRecord, "remove it to have the stage trained again")
RECORD_IF_ANY = Kind(kinds.Record, STAGE_RECORD.remedy)
"""A record of a stage whose weights were kept or not."""

STAGE_HISTORY = Kind(kinds.History, "remove it: only the report needs it")
CHAIN_FILE = Kind(kinds.ChainFile, "remove it and run the pipeline again to have it written")
RUN_STATE = Kind(
    kinds.RunState,
    "remove it (changes of what the run was made from are not seen then), or train the run again with --from",
)
CHECKPOINT_TEXT = Kind(kinds.CheckpointText, "remove its checkpoint, to go on from the one before it")
FIGURES = Kind(kinds.Figures, "remove it and run the pipeline again to have the model evaluated again")
TOKENIZER_FILE = Kind(
    kinds.TokenizerManifest, "build the tokenizer again with `axolotl eeve tokenizer` and `overwrite: true`"
)
CORPUS_FILE = Kind(
    kinds.CorpusManifest, "make the corpus again with `axolotl eeve corpus` and `overwrite: true`"
)
_STEP = "remove the directory that it is in, and run the command again"
START_RECORD = Kind(kinds.StartRecord, _STEP)
START_STATE = Kind(
    kinds.RunState, "remove it (changes of what the started model was made from are not seen then)"
)
TALLY, CHOICE, THRESHOLD = (Kind(each, _STEP) for each in (kinds.Tallied, kinds.Choice, kinds.Threshold))
FAST_TOKENIZER = Kind(kinds.FastTokenizer, "build or download the tokenizer again")
MODEL_CONFIG = Kind(kinds.ModelConfig, "put back what the model was saved with")


def read(path: Path, kind: Kind) -> dict[str, Any] | None:
    """The content of a file of ours, None if there is none.

    Raises EEVEError with the file and what to do if it is no JSON, or not of its kind.
    """
    content = read_json_if_there(path, kind.remedy)
    if content is None:
        if path.is_file():
            raise EEVEError(f"{path} is empty; {kind.remedy}")
        return None
    if found := kinds.wrong(content, kind.shape):
        raise EEVEError(f"{path} {found}; {kind.remedy}")
    whole: dict[str, Any] = content
    return whole


def read_there(path: Path, kind: Kind) -> dict[str, Any]:
    """The same of a file that must be there. Raises EEVEError if it is not."""
    content = read(path, kind)
    if content is None:
        raise EEVEError(f"{path} is gone; {kind.remedy}")
    return content


def read_record(directory: str | Path) -> dict[str, Any] | None:
    """The record of a stage that is done, or None: no record, or weights that are not those it names.

    Raises EEVEError if the record is none of ours.
    """
    record = read(Path(directory) / RECORD, STAGE_RECORD)
    return record if record and record["weights"] == weights_sha256(directory) else None


def record_merge(adapter: str | Path, merged: str | Path) -> bool:
    """Put the record and the history of a finished stage beside the model that its adapter was merged into.

    The record comes last: its presence says that the merge is whole. Returns False, with nothing written, where the
    adapter is not a finished stage's (a checkpoint's, say).
    """
    record = read_record(adapter)
    if record is None:
        return False
    merged = Path(merged)
    if (history := Path(adapter) / HISTORY).is_file():
        with writing(merged / HISTORY) as copy:
            shutil.copy(history, copy)
    of_the_merge = {"merged_from": record["weights"], "weights": weights_sha256(merged)}
    write_json(merged / RECORD, {**record, **of_the_merge})
    return True


def check_place_to_start(output: Path, key: str) -> None:
    """Raise EEVEError if `output`, which `key` names, holds what `axolotl eeve start` did not write."""
    if not output.exists():
        return
    there = [
        each for each in output.iterdir() if each.name not in LEFT_BY_A_KILL and each.name != "lost+found"
    ]
    written = [output / START, *(output / name / START for name in LEFT_BY_A_KILL)]
    if there and not any(each.exists() for each in written):
        raise EEVEError(f"{key}: {output} holds something that this command did not write; choose another")
    if (output / RECORD).exists():
        raise EEVEError(f"{key}: {output} holds a model that a stage has trained since; choose another")


def frozen_parts(record: Mapping[str, Any]) -> dict[str, bool]:
    """Of each part that a stage's record has a fingerprint of, whether its frozen rows or layers did not move.

    The fingerprints before the first step and after the last are the same, and none of the part is told to have moved;
    internal layers are told by parameter.
    """
    before, after = (record.get(f"fingerprint_{when}") or {} for when in ("before", "after"))
    moved = [
        next((part for part in EMBEDDINGS if name.startswith(part)), INTERNAL_LAYERS)
        for name in record.get("moved") or {}
    ]
    return {
        part: bool(before.get(part)) and before.get(part) == after.get(part) and part not in moved
        for part in dict.fromkeys([*before, *after])
    }


def check_kept_weights(directory: Path, stage: str) -> None:
    """Raise EEVEError if a finished stage has a record and kept weights, but not those that the record names."""
    record = read(directory / RECORD, STAGE_RECORD)
    if record and record["weights"]:
        there = weights_sha256(directory)
        if there and there != record["weights"]:
            wrong = [
                name
                for name in sorted({*there, *record["weights"]})
                if there.get(name) != record["weights"].get(name)
            ]
            raise EEVEError(
                f"{directory / wrong[0]} is not what stage {stage} wrote; put it back, or train again: --from {stage}"
            )


def weights_sha256(directory: str | Path) -> dict[str, str]:
    """SHA-256 of every weights file in `directory`, by name; a file is read again only if it has changed."""
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        at = path.stat()
        found[path.name] = _sha256(path.absolute(), at.st_size, at.st_mtime_ns, at.st_ctime_ns)
    return found


@functools.lru_cache(maxsize=1000)
def _sha256(path: Path, size: int, written: int, changed: int) -> str:
    return sha256(path)
