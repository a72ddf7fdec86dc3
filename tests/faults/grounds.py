"""What the tests of faults share: a chain on disk whose commands are a few lines, and files of a user's to be kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from eeve_axolotl.evaluation.settings import EvaluationSettings, subject
from eeve_axolotl.pipeline.chain import Chain
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.records import HISTORY, RECORD, weights_sha256


class Launcher:
    """In the place of `axolotl`: writes what each command would, and remembers the commands."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, arguments: list[str], log: Path, on_step) -> int:
        self.commands.append(arguments)
        log.write_text("done\n")
        cfg = yaml.safe_load(Path(arguments[1]).read_text()) if arguments[0] != "eeve" else {}
        if arguments[0] == "train":
            train(cfg, arguments)
        elif arguments[0] == "merge-lora":
            merged = Path(cfg["output_dir"], "merged")
            merged.mkdir(exist_ok=True)
            write_model(
                merged, b"merged " + Path(cfg["output_dir"], "adapter_model.safetensors").read_bytes()
            )
        return 0

    def trained(self) -> list[str]:
        return [Path(each[1]).stem for each in self.commands if each[0] == "train"]


class Evaluating(Launcher):
    """Writes figures too, of models evaluated as `settings` say."""

    def __init__(self, settings: EvaluationSettings) -> None:
        super().__init__()
        self.settings = settings

    def __call__(self, arguments: list[str], log: Path, on_step) -> int:
        status = super().__call__(arguments, log, on_step)
        if arguments[:2] == ["eeve", "evaluate"]:
            options = dict(zip(arguments[3::2], arguments[4::2], strict=True))
            figures = subject(arguments[2], options.get("--tokenizer"), self.settings)
            path = Path(options["--output"])
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"name": options["--name"], "texts": {}, **figures}))
        return status

    def evaluated(self) -> list[str]:
        return [each[2] for each in self.commands if each[:2] == ["eeve", "evaluate"]]


def prepared_text(cfg: dict, arguments: list[str]) -> bytes:
    """The text as Axolotl would see it: from its cache, which it writes if it is not there."""
    cache = Path(arguments[arguments.index("--dataset-prepared-path") + 1], "0" * 32)
    if not cache.is_dir():
        cache.mkdir(parents=True)
        (cache / "data-00000-of-00001.arrow").write_bytes(Path(cfg["datasets"][0]["path"]).read_bytes())
        (cache / "state.json").write_text("{}")
    return (cache / "data-00000-of-00001.arrow").read_bytes()


def train(cfg: dict, arguments: list[str]) -> None:
    """Weights that follow from the text."""
    text = prepared_text(cfg, arguments)
    output = Path(cfg["output_dir"])
    output.mkdir(parents=True, exist_ok=True)
    write_model(output, b"weights of " + text, "adapter_model" if cfg.get("adapter") else "model")
    (output / HISTORY).write_text(json.dumps({"steps": [], "settings": {}}))
    (output / RECORD).write_text(json.dumps({"stage": "x", "weights": weights_sha256(output)}))


def write_model(directory: Path, weights: bytes, name: str = "model") -> None:
    header = json.dumps({"__metadata__": {"made_of": weights.decode()}}).encode()
    (directory / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (directory / "config.json").write_text("{}")


def made_of(directory: Path, name: str = "model") -> str:
    """What the weights in `directory` were made of."""
    return json.loads((directory / f"{name}.safetensors").read_bytes()[8:])["__metadata__"]["made_of"]


def chain(directory: Path, launcher: Launcher | None = None, runs=("stage3.yml",), **keys) -> Chain:
    """A pipeline in `directory`, which is the one that the process is in."""
    settings = PipelineSettings(output="pipeline", runs=list(runs), **keys)
    return Chain("pipeline.yml", settings, launcher or Launcher())


def write_ground(directory: Path, stages=(3,), **keys) -> None:
    """A base, a text, and a YAML for each stage, each of which starts from what the one before makes."""
    base = directory / "base"
    base.mkdir()
    write_model(base, b"base")
    (base / "tokenizer.json").write_text(
        json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []})
    )
    (directory / "text.jsonl").write_text('{"text": "one"}\n')
    start = "base"
    for stage in stages:
        adapter = {"adapter": "qlora"} if stage >= 6 else {}
        cfg = {
            "base_model": start, "tokenizer_config": "base", "output_dir": f"out{stage}", "eeve": {"stage": stage},
            "datasets": [{"path": "text.jsonl", "type": "completion"}], "dataset_prepared_path": "prepared",
            **adapter, **keys,
        }  # fmt: skip
        (directory / f"stage{stage}.yml").write_text(yaml.safe_dump(cfg))
        start = f"out{stage}/merged" if adapter else f"out{stage}"


def plant(directory: Path) -> dict[str, str]:
    """A user's own files in `directory`; returns their hashes."""
    for name in ("raw/notes.txt", "data-raw/text.jsonl", "thesis/chapter1.tex", "NOTES.md"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}: mine")
    return hashes(directory)


def hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below `directory`, by its place there."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _files(directory)
    }


def unharmed(directory: Path, planted: dict[str, str]) -> bool:
    """Whether all that was planted is there as it was."""
    return planted.items() <= hashes(directory).items()


def _files(directory: Path) -> Iterator[Path]:
    found = (
        Path(folder, name) for folder, _, names in os.walk(directory, followlinks=True) for name in names
    )
    return (path for path in sorted(found) if path.is_file())
