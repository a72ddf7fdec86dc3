"""The runs of a pipeline, read from their YAMLs: what each needs, what it makes, and whether that is there."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from eeve_axolotl import inputs
from eeve_axolotl.args import EEVESettings, read_block
from eeve_axolotl.corpus.manifest import tokenizer_identity
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import write_json
from eeve_axolotl.records import (
    CHAIN,
    CHAIN_FILE,
    RECORD,
    checkpoints_directory,
    last_whole_checkpoint,
    read,
    read_record,
    weights_sha256,
)
from eeve_axolotl.secrets import redacted
from eeve_axolotl.settings import read_mapping
from eeve_axolotl.stages import Layers

# Keys whose change does not make other weights.
_HARMLESS = ("logging_steps", "save_steps", "save_strategy", "save_total_limit", "dataset_prepared_path", "output_dir",
             "auto_resume_from_checkpoints", "wandb_", "mlflow_", "comet_", "trackio_", "use_")  # fmt: skip


@dataclass(frozen=True)
class StagePlace:
    """A stage of a run, and the directory in which its record and, if kept, its weights are."""

    name: str
    directory: Path


@dataclass(frozen=True)
class Run:
    """One `axolotl train`, and the merge that follows where it trains adapters."""

    name: str
    config: Path
    cfg: dict
    settings: EEVESettings

    @classmethod
    def read(cls, config: str) -> Run:
        """Read a run's YAML. Raises EEVEError if it is not one of ours."""
        path = Path(config)
        try:
            cfg = read_mapping(path)
            settings = read_block(cfg, config)
        except EEVEError as error:
            raise EEVEError(f"runs: {error}") from None
        for key in ("output_dir", "base_model"):
            if not cfg.get(key):
                raise EEVEError(f"{config} has no `{key}`; a chain needs to know where a run starts and ends")
        for key in ("output_dir", "base_model", "tokenizer_config", "dataset_prepared_path"):
            if not isinstance(cfg.get(key) or "", str):
                raise EEVEError(
                    f"{config}: `{key}` is {cfg[key]!r}, not the name of a place; put it in quotes"
                )
        return cls(path.stem, path, cfg, settings)

    @property
    def output(self) -> Path:
        """Where Axolotl writes."""
        return Path(self.cfg["output_dir"])

    @property
    def has_adapter(self) -> bool:
        """Whether its result must be merged before another run can start from it."""
        return any(each.resolved().internal_layers is Layers.QLORA for each in self.settings.schedule())

    @property
    def result(self) -> Path:
        """The whole model that the next run starts from."""
        return self.output / "merged" if self.has_adapter else self.output

    @property
    def stages(self) -> list[StagePlace]:
        """Its stages in order; the last one's place is the run's own."""
        names = [each.resolved().name for each in self.settings.schedule()]
        return [StagePlace(name, self.output / f"stage{name}") for name in names[:-1]] + [
            StagePlace(names[-1], self.output)
        ]

    @property
    def max_steps(self) -> int:
        """Steps of all its stages at most; 0 where the YAML does not say.

        A token budget is left out: how many steps it makes depends on the GPUs, which only the trainer sees.
        """
        steps = [each.max_steps or self.cfg.get("max_steps") or 0 for each in self.settings.schedule()]
        return sum(steps) if min(steps) > 0 else 0

    @property
    def trained(self) -> bool:
        """Whether it is trained: its record says so, and its weights are those that the record names."""
        return read_record(self.output) is not None

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from: a checkpoint, or a finished stage before its last."""
        places = (self.output, *(checkpoints_directory(self.output, each.name) for each in self.stages))
        return any(last_whole_checkpoint(place) for place in places) or any(
            (each.directory / RECORD).is_file() for each in self.stages[:-1]
        )

    @property
    def merged(self) -> bool:
        """Whether its result is whole, and made from the adapter that is there."""
        if not self.has_adapter:
            return True
        record = read_record(self.result)
        return record is not None and record.get("merged_from") == weights_sha256(self.output)

    def state(self) -> dict:
        """What its result depends on: its settings, its tokenizer, and the weights that it starts from."""
        settings = {key: value for key, value in self.cfg.items() if not key.startswith(_HARMLESS)}
        return {
            "settings": redacted(json.loads(json.dumps(settings, default=str))),
            "tokenizer": redacted(self.tokenizer()),
            "starts_from": weights_sha256(Path(self.cfg["base_model"])),
            "inputs": redacted({**self.texts(), **self._models()}),
        }

    def tokenizer(self) -> str:
        """What its tokenizer is, by content where it is a directory."""
        tokenizer = self.cfg.get("tokenizer_config") or self.cfg["base_model"]
        return tokenizer_identity(tokenizer) if Path(tokenizer).is_dir() else tokenizer

    def _models(self) -> inputs.Identity:
        base, tokenizer = self.cfg["base_model"], self.cfg.get("tokenizer_config")
        of_base = inputs.of_model(base, self.cfg.get("revision_of_model"))
        # A directory's tokenizer is known by what it does (`tokenizer`).
        return of_base if not tokenizer or Path(tokenizer).is_dir() else of_base | inputs.of_model(tokenizer)

    def texts(self) -> inputs.Identity:
        """What it trains and evaluates on, by content."""
        keys = ("datasets", "test_datasets", "pretraining_dataset")
        return {name: each for key in keys for name, each in inputs.of_datasets(self.cfg.get(key)).items()}


def changes(before: dict, now: dict) -> list[str]:
    """What is different between two states of a run, in words."""
    found = []
    if before["tokenizer"] != now["tokenizer"]:
        found.append("the tokenizer was built anew")
    if before["starts_from"] != now["starts_from"]:
        found.append("the model that it starts from is another")
    for key in ("inputs", "made"):  # records of earlier versions have neither
        found += inputs.changes(before.get(key) or now[key], now[key])
    return found + inputs.differences(before["settings"], now["settings"])


def check_chain(runs: list[Run]) -> None:
    """Raise EEVEError where a run does not start from what the one before it makes, or two share a name or place."""
    for number, run in enumerate(runs):
        for other in runs[:number]:
            if run.name == other.name or run.output.absolute() == other.output.absolute():
                raise EEVEError(
                    f"runs: {run.config} and {other.config} have the same name or output_dir; give each its own"
                )
    makers: dict[str, Run] = {}
    for run in runs:
        for stage in run.stages:
            other = makers.setdefault(stage.name, run)
            if other is not run:
                raise EEVEError(
                    f"runs: {other.config} and {run.config} both have a stage {stage.name}, and neither figures nor "
                    "`--from` could tell them apart; make a pipeline of its own of one"
                )
    for before, run in itertools.pairwise(runs):
        if Path(run.cfg["base_model"]).absolute() != before.result.absolute():
            raise EEVEError(
                f"runs: {run.config} starts from {run.cfg['base_model']}, but {before.config} before it makes "
                f"{before.result}; set its base_model to that, or add the run between them"
            )
        if run.cfg.get("tokenizer_config") != runs[0].cfg.get("tokenizer_config"):
            raise EEVEError(
                f"runs: {run.config} has another tokenizer_config than {runs[0].config}; use one in all"
            )


def claim(output: Path, runs: list[Run], base_model: str, texts: dict[str, str]) -> None:
    """Write down what this pipeline is. Raises EEVEError if `output` is another pipeline's.

    Args:
        base_model: that the chain begins with, without new rows.
        texts: what is evaluated on, by name.
    """
    path = output / CHAIN
    before = read(path, CHAIN_FILE)
    places = [str(run.output) for run in runs]
    written = [
        str(run.get("output_dir")) if isinstance(run, dict) else "?" for run in (before or {}).get("runs", [])
    ]
    if before and written != places:
        theirs = ", ".join(written)
        raise EEVEError(
            f"output {output} belongs to another pipeline (its runs write {theirs}); choose another `output`, or "
            "remove it"
        )
    write_json(
        path,
        redacted(
            {
                "tokenizer": runs[0].cfg.get("tokenizer_config") or runs[0].cfg["base_model"],
                "base_model": base_model,
                "texts": texts,
                "runs": [
                    {
                        "name": run.name,
                        "config": str(run.config),
                        "output_dir": str(run.output),
                        "result": str(run.result),
                        "stages": [
                            {"name": each.name, "directory": str(each.directory)} for each in run.stages
                        ],
                    }
                    for run in runs
                ],
            }
        ),
    )
