"""Reading what a pipeline left in its directory. Whatever is not there yet is None or empty, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.records import (
    CHAIN,
    CHAIN_FILE,
    EVALUATION,
    FAST_TOKENIZER,
    FIGURES,
    HISTORY,
    RECORD,
    RECORD_IF_ANY,
    STAGE_HISTORY,
    TOKENIZER_FILE,
    TOKENIZER_MANIFEST,
    Kind,
    read,
)
from eeve_axolotl.secrets import redacted

MATRICES = {"input_embeddings": "input embeddings", "output_embeddings": "output embeddings"}


LOSS_WINDOW = 20  # logged steps


def loss_window(logged: int) -> int:
    """How many losses one mean is of, where so many were logged: one batch's loss says little."""
    return max(1, min(LOSS_WINDOW, logged // 10))


@dataclass(frozen=True)
class StageData:
    """One stage: its record and its history, empty where the stage has not written them."""

    name: str
    directory: Path
    record: Mapping = field(default_factory=dict)
    history: Mapping = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tables and plots call it."""
        return f"stage {self.name}"

    @property
    def done(self) -> bool:
        """Whether the stage has its record, which is written last."""
        return bool(self.record)

    @property
    def steps(self) -> int | None:
        """Optimiser steps, from the record, else from the history's last entry."""
        if self.record.get("steps") is not None:
            return int(self.record["steps"])
        logged = self.history.get("steps")
        return int(logged[-1]["step"]) if logged else None

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens in one step, padding counted."""
        return self.history.get("tokens_per_step")

    @property
    def tokens(self) -> int | None:
        """Tokens of the whole stage, padding counted."""
        if self.steps is None or self.tokens_per_step is None:
            return None
        return self.steps * self.tokens_per_step

    @property
    def seconds(self) -> float | None:
        """Wall-clock time of training."""
        return self.history.get("seconds")

    @property
    def losses(self) -> list[tuple[int, float]]:
        """(step, loss) where a loss was logged."""
        return [(each["step"], each["loss"]) for each in self.history.get("steps", []) if _has_loss(each)]

    @property
    def first_and_last_loss(self) -> tuple[float, float] | None:
        """Means of the first and of the last tenth of the logged losses, at most `LOSS_WINDOW` of them each."""
        losses = [loss for _, loss in self.losses]
        if not losses:
            return None
        window = loss_window(len(losses))
        return sum(losses[:window]) / window, sum(losses[-window:]) / window

    @property
    def settings(self) -> Mapping:
        """The Axolotl config that the stage ran with."""
        settings: Mapping = redacted(self.history.get("settings") or {})  # earlier versions kept all
        return settings

    @property
    def versions(self) -> Mapping:
        """Versions of the libraries that the stage ran with, ours among them."""
        ours = {"eeve_axolotl": self.record["eeve_axolotl"]} if "eeve_axolotl" in self.record else {}
        return {**ours, **(self.history.get("versions") or {})}


@dataclass(frozen=True)
class RunData:
    """One `axolotl train`, and where its weights are: `output_dir`, or `merged` below it after an adapter."""

    name: str
    config: str
    output_dir: Path
    result: Path
    stages: tuple[StageData, ...]


@dataclass(frozen=True)
class Evaluation:
    """One evaluated model; `figures` is its file, empty for a stage that has not been evaluated."""

    name: str
    figures: Mapping = field(default_factory=dict)

    def text(self, name: str) -> Mapping:
        """The figures on one held-out text."""
        return (self.figures.get("texts") or {}).get(name) or {}

    def row_norms(self, matrix: str, which: str) -> Mapping:
        """`mean_norm`, `std_norm` and `count` of the `old` or `new` rows of a matrix."""
        return ((self.figures.get("rows") or {}).get(matrix) or {}).get(which) or {}

    @property
    def retention(self) -> Mapping:
        """By text, the base's bits per byte over this model's."""
        return self.figures.get("retention") or {}

    @property
    def neighbours(self) -> Mapping:
        """By new token, the tokens nearest to it and their cosines."""
        return self.figures.get("neighbours") or {}

    @property
    def samples(self) -> list[Mapping]:
        """What the model wrote after fixed prompts."""
        return self.figures.get("samples") or []


@dataclass(frozen=True)
class PipelineData:
    """Everything the report is made of."""

    directory: Path
    base_model: str
    tokenizer: Path
    texts: Mapping[str, str]
    runs: tuple[RunData, ...]
    evaluations: tuple[Evaluation, ...]  # by position; a stage without one stands empty in its place
    manifest: Mapping  # of the tokenizer; empty if it is not one that we built
    token_ids: Mapping[str, int]

    @property
    def stages(self) -> list[StageData]:
        """The stages of all runs in order."""
        return [stage for run in self.runs for stage in run.stages]

    @property
    def new_tokens(self) -> int | None:
        """Number of tokens added, from the manifest, else from the newest record."""
        for source in (self.manifest, *(stage.record for stage in reversed(self.stages))):
            size, base = source.get("vocab_size"), source.get("base_vocab_size")
            if size is not None and base is not None:
                return size - base
        return None

    @property
    def text_names(self) -> list[str]:
        """Held-out texts: those the pipeline names, then any others that were evaluated."""
        evaluated = (name for each in self.evaluations for name in each.figures.get("texts") or {})
        return list(dict.fromkeys([*self.texts, *evaluated]))

    @property
    def evaluated(self) -> list[Evaluation]:
        """The evaluations that there are."""
        return [each for each in self.evaluations if each.figures]

    def missing(self) -> list[str]:
        """What is not there yet, a sentence each."""
        said = []
        for stage in self.stages:
            if not stage.done:
                said.append(f"{stage.label} is not done: no {RECORD} in {stage.directory}")
            elif not stage.history:
                said.append(f"{stage.label} has no history: its loss, tokens and time are not known")
        if not self.evaluated:
            said.append("no model has been evaluated")
        else:
            there = {each.name for each in self.evaluated}
            wanted = ("base", "extended", *(stage.label for stage in self.stages if stage.done))
            without = [name for name in wanted if name not in there]
            said += [f"no evaluation of {', '.join(without)}"] if without else []
            said += [
                f"no figures of {each.name} on {name}"
                for each in self.evaluated
                for name in self.text_names
                if not each.text(name)
            ]
        if not self.manifest:
            said.append(f"the tokenizer has no {TOKENIZER_MANIFEST}")
        return said


def collect(directory: str | Path) -> PipelineData:
    """Read the `output` directory of a pipeline.

    Raises EEVEError if it is not one, or a file in it cannot be read.
    """
    directory = Path(directory)
    if not (directory / CHAIN).is_file():
        raise EEVEError(
            f"{directory} is not the output of a pipeline (there is no {CHAIN} in it); "
            "give the `output` that your pipeline's YAML names"
        )
    chain = redacted(_read(directory / CHAIN, CHAIN_FILE))
    try:
        runs = tuple(_run(each) for each in chain["runs"])
        tokenizer = Path(chain["tokenizer"])
        return PipelineData(
            directory=directory,
            base_model=str(chain["base_model"]),
            tokenizer=tokenizer,
            texts=chain.get("texts") or {},
            runs=runs,
            evaluations=_evaluations(directory / EVALUATION, runs),
            manifest=_manifest(tokenizer / TOKENIZER_MANIFEST),
            token_ids=_token_ids(tokenizer / "tokenizer.json"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EEVEError(
            f"{directory / CHAIN} is not as `axolotl eeve run` writes it ({type(error).__name__}: {error}); "
            "run the pipeline again to have it written"
        ) from None


def _run(entry: Mapping) -> RunData:
    stages = tuple(
        StageData(
            str(each["name"]),
            Path(each["directory"]),
            _read(Path(each["directory"]) / RECORD, RECORD_IF_ANY),
            _read(Path(each["directory"]) / HISTORY, STAGE_HISTORY),
        )
        for each in entry["stages"]
    )
    output_dir = Path(entry["output_dir"])
    return RunData(
        entry["name"], entry.get("config", ""), output_dir, Path(entry.get("result") or output_dir), stages
    )


def _evaluations(directory: Path, runs: tuple[RunData, ...]) -> tuple[Evaluation, ...]:
    """Evaluations by position, and an empty one for each stage without, after the stage before it."""
    files = [{"name": path.stem, **_read(path, FIGURES)} for path in sorted(directory.glob("*.json"))]
    files.sort(key=lambda figures: (figures.get("position", float("inf")), str(figures["name"])))
    if not files:
        return ()
    found = [Evaluation(str(figures["name"]), figures) for figures in files]
    # A stage comes after the base and the extended model, which stand at positions up to 0.
    place = sum(figures.get("position", float("inf")) <= 0 for figures in files)
    for stage in (stage for run in runs for stage in run.stages):
        names = [each.name for each in found]
        if stage.label in names:
            place = names.index(stage.label) + 1
        else:
            found.insert(place, Evaluation(stage.label))
            place += 1
    return tuple(found)


def _manifest(path: Path) -> Mapping:
    manifest = _read(path, TOKENIZER_FILE)
    named = {key: redacted(manifest[key]) for key in ("base", "settings") if key in manifest}
    return {**manifest, **named}


def _token_ids(path: Path) -> Mapping[str, int]:
    """Ids by token, from a fast tokenizer's file; empty where there is none or it is not a mapping."""
    vocabulary = (_read(path, FAST_TOKENIZER).get("model") or {}).get("vocab")
    return vocabulary if isinstance(vocabulary, dict) else {}


def _read(path: Path, kind: Kind) -> dict:
    """What is in a file of a kind, empty if there is no such file."""
    return read(path, kind) or {}


def _has_loss(entry: Mapping) -> bool:
    return entry.get("loss") is not None
