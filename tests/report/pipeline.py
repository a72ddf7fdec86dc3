"""A pipeline's directory made up for tests: small, with figures that follow from the stage's number."""

from __future__ import annotations

import json
import math
from pathlib import Path

from eeve_axolotl.stages import STAGES

TOKENS_PER_STEP = 2048
STEPS = 40
NEW = {"▁학교": 32000, "하늘": 32001, "▁바다": 32002, "▁$나무": 32003}
OLD = ["▁school", "▁sky", "<0xED>", "▁sea", "天", "`"]


def bits(text: str, position: int) -> float:
    """Bits per byte of a made-up model."""
    return {"Korean": 2.0, "English": 1.0}[text] - 0.1 * max(position, 0) * (text == "Korean")


def make(root: Path, done: int = 7, evaluated: tuple[int, ...] = tuple(range(-1, 8)), **plan) -> Path:
    """Write a pipeline of seven stages in three runs below `root` and return its output directory.

    Args:
        done: stages that have record, history and weights; the rest have nothing.
        evaluated: positions that have an evaluation: -1 the base, 0 the extended model, then stages.
        plan: keys of eeve_pipeline.json to set otherwise.
    """
    output = root / "output"
    tokenizer = output / "tokenizer"
    _write(tokenizer / "eeve_tokenizer.json", _manifest())
    ids = {**{token: number for number, token in enumerate(OLD, start=100)}, **NEW}
    _write(tokenizer / "tokenizer.json", {"model": {"vocab": ids}})
    runs = [
        ("stages1-5", output / "joint", "", range(1, 6)),
        ("stage6", output / "stage6", "merged", (6,)),
        ("stage7", output / "stage7", "merged", (7,)),
    ]
    entries = []
    for name, directory, merged, numbers in runs:
        stages = []
        for number in numbers:
            where = directory / f"stage{number}" if len(numbers) > 1 else directory / merged
            stages.append({"name": str(number), "directory": str(where)})
            if number <= done:
                _stage(where, number)
        result = Path(stages[-1]["directory"])
        entries.append(
            {
                "name": name,
                "config": f"{name}.yml",
                "output_dir": str(directory),
                "result": str(result),
                "stages": stages,
            }
        )
    _write(
        output / "eeve_pipeline.json",
        {
            "tokenizer": str(tokenizer),
            "base_model": "upstage/SOLAR-10.7B-v1.0",
            "texts": {"Korean": "held_out_ko.jsonl", "English": "held_out_en.jsonl"},
            "runs": entries,
            **plan,
        },
    )
    for position in evaluated:
        _write(output / "evaluation" / f"model{position % 10}.json", evaluation(position))
    return output


def _stage(directory: Path, number: int) -> None:
    stage = STAGES[number]
    frozen = {"input_embeddings": "aa" * 16, "internal_layers": "bb" * 16}
    rows = {"rows_trained": 4, "rows_frozen": 32000, "first_trained_row": 32000, "rows": 32004}
    record = {
        "stage": stage.name,
        "trains": {
            "input_embeddings": stage.input_embeddings.value,
            "output_embeddings": stage.output_embeddings.value,
            "internal_layers": stage.internal_layers.value,
        },
        "base_vocab_size": 32000,
        "vocab_size": 32004,
        "eeve_axolotl": "0.1.0",
        "tied": False,
        "input_embeddings": rows,
        "output_embeddings": rows,
        "parameters_trained": 1000 * number,
        "optimizer_state_bytes": 2_000_000 * number,
        "fingerprint_before": frozen,
        "fingerprint_after": frozen,
        "moved": {},
        "steps": STEPS * number,
        "weights": {"model.safetensors": "cc" * 32},
    }
    _write(directory / "eeve_stage.json", record)
    steps = range(1, STEPS * number + 1)
    history = {
        "tokens_per_step": TOKENS_PER_STEP,
        "seconds": 30.0 * number,
        "steps": [
            {"step": step, "loss": 6 - 0.5 * number + math.exp(-step / 10), "learning_rate": 4e-5}
            for step in steps
        ],
        "versions": {"torch": "2.9.0", "axolotl": "0.19.0"},
        "settings": {
            "learning_rate": 4e-5,
            "sequence_len": 256,
            "eeve": {"stage": number},
            "datasets": [{"path": "corpus_ko", "type": "completion", "split": "train"}],
            "hub_token": "a-secret",
        },
    }
    _write(directory / "eeve_history.json", history)
    (directory / "model.safetensors").write_bytes(b"weights")


def evaluation(position: int) -> dict:
    """The figures of one made-up model."""
    old = {"mean_norm": 0.8, "std_norm": 0.05, "count": 32000}
    new = {"mean_norm": 0.4 + 0.05 * position, "std_norm": 0.1, "count": 4} if position >= 0 else None
    predicted = {
        "targets": 500,
        "accuracy": 0.1 * position,
        "first_subword_instead": 0.5 - 0.05 * position,
        "share_of_predictions": 0.04 * position,
    }
    texts = {
        name: {
            "bits_per_byte": bits(name, position),
            "tokens_per_character": 1.5 if position < 0 else 0.9,
            "tokens": 900,
            "characters": 1000,
            "bytes": 2500,
            "new_tokens": predicted if position >= 0 and name == "Korean" else None,
        }
        for name in ("Korean", "English")
    }
    near = {
        token: [[old_token, 0.3 + 0.05 * position + 0.1 * place] for old_token in OLD[place : place + 2]]
        for place, token in enumerate(NEW)
    }
    return {
        "name": {-1: "base", 0: "extended"}.get(position, f"stage {position}"),
        "position": position,
        "model": "somewhere",
        "texts": texts,
        "retention": {"English": 1.0} if position >= 0 else {},
        "rows": {"input_embeddings": {"old": old, "new": new}, "output_embeddings": {"old": old, "new": new}},
        "neighbours": near if position >= 0 else {},
        "samples": [
            {
                "prompt": "옛날에",
                "text": f"토끼가 <s> {position} | 살았어요.\nEnd",
                "new_token_share": 0.1 * max(position, 0),
            }
        ],
    }


def _manifest() -> dict:
    return {
        "base": "upstage/SOLAR-10.7B-v1.0",
        "base_vocab_size": 32000,
        "vocab_size": 32004,
        "settings": {"script": ["Hangul"], "corpus": [{"path": "corpus_ko", "columns": ["text"]}]},
        "corpus": {"documents": 10, "bytes": 1_500_000, "files": 1, "distinct_words": 7},
        "min_count": 30,
        "rare": {
            "letters": 3,
            "letters_never_alone": 2,
            "beginnings_of_letters": 1,
            "allowed": 0,
            "others": 0,
        },
        "tokens_in_words": {"base": 900, "extended": 450},
        "unreachable": 0,
    }


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
