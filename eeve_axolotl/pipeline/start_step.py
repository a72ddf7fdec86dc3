"""The start of new output rows as a step of the chain: what it reads, whether it fits, and what has changed since."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from eeve_axolotl import base_model, inputs
from eeve_axolotl.args import InitSettings
from eeve_axolotl.checks import is_local_path
from eeve_axolotl.corpus.manifest import TRAIN
from eeve_axolotl.errors import EEVEError, UnknownError
from eeve_axolotl.paths import matching, same_place
from eeve_axolotl.pipeline.corpus_step import CorpusStep
from eeve_axolotl.pipeline.runs import Run, changes
from eeve_axolotl.pipeline.settings import StartSettings
from eeve_axolotl.records import (
    CORPUS_MANIFEST,
    START,
    START_RECORD,
    START_STATE,
    check_place_to_start,
    read,
    weights_sha256,
)
from eeve_axolotl.secrets import redacted
from eeve_axolotl.sources import check_has_text


class StartStep:
    """`axolotl eeve start` in a chain.

    Args:
        first: the run that starts from what it writes.
        corpus: the chain's corpus, if that is a step too.
    """

    def __init__(self, settings: StartSettings, first: Run, corpus: CorpusStep | None):
        self.settings, self.base, self.output = settings, settings.base, Path(settings.output)
        self._first, self._corpus = first, corpus
        self._untie = first.settings.untie if settings.untie is None else settings.untie

    @property
    def done(self) -> bool:
        """Whether the started model is there: its record comes with it, as a whole."""
        return (self.output / START).is_file()

    @property
    def texts(self) -> list[str]:
        """What it reads. Raises EEVEError where the settings leave it open and the first run does not tell."""
        if self.settings.texts:
            return [self._to_train_on(each) for each in self.settings.texts]
        if self._corpus:
            return [str(self._corpus.output / TRAIN)]
        return [self._to_train_on(each) for each in self._of_the_run()]

    def arguments(self) -> list[str]:
        """Its command, after `axolotl`."""
        settings = self.settings
        texts = [each for text in self.texts for each in ("--text", text)]
        how = [
            "--tokens",
            str(settings.tokens),
            "--max-length",
            str(settings.max_length),
            "--dtype",
            settings.dtype,
        ]
        untie = ["--untie"] if self._untie else []
        where = ["--tokenizer", self._tokenizer, "--output", str(self.output)]
        return ["eeve", "start", self.base, *where, *texts, *how, *untie]

    # --- before ---

    def check(self, runs: Collection[Run], others: Mapping[str, str], held_out: Mapping[str, str]) -> None:
        """Raise EEVEError, before any work, for a start that does not fit the chain.

        Args:
            runs: the chain's.
            others: places that other steps write, by what they are.
            held_out: what is evaluated on, by name.
        """
        first = self._first
        if not same_place(first.cfg["base_model"], self.output):
            raise EEVEError(
                f"start: it writes {self.output}, but {first.config} starts from {first.cfg['base_model']}; set "
                f"`base_model: {self.settings.output}` in {first.config}, or leave `start` out of the pipeline"
            )
        if not first.cfg.get("tokenizer_config"):
            raise EEVEError(
                f"start: {first.config} names no tokenizer_config, and its base model is not made yet; set it to the "
                "extended tokenizer"
            )
        if is_local_path(self.base) and not Path(self.base).is_dir():
            raise EEVEError(
                f"start: the base {self.base} does not exist; give the directory of a model, or its name on the hub"
            )
        taken: dict[str, str | Path] = {"the base": self.base, "the tokenizer": self._tokenizer, **others}
        for what, place in (*taken.items(), *((f"output_dir of {run.config}", run.output) for run in runs)):
            if same_place(place, self.output):
                raise EEVEError(
                    f"start: its output {self.output} is {what}; choose another, and that base_model"
                )
        for what, place in taken.items():  # made before it; on the hub there is no place
            if _within(place, self.output) and (place != self.base or Path(place).exists()):
                raise EEVEError(
                    f"start: its output {self.output} has {what}, {place}, in it; choose another, and that base_model"
                )
        for problem in self._keys_without_effect():
            raise EEVEError(f"start: {first.config} {problem}")
        self._check_texts(held_out)

    def check_place(self) -> None:
        """Raise EEVEError if the model is to be made in a place that holds something else."""
        if not self.done:
            check_place_to_start(self.output, "start: output")

    def check_matrices(self) -> None:
        """Raise EEVEError if the base has one matrix for both embeddings and gets no second; not where nobody knows."""
        if self._untie or self.done:
            return
        with contextlib.suppress(UnknownError):
            if base_model.is_tied({"base_model": self.base}):
                raise EEVEError(
                    f"start: {self.base} has one matrix for both embeddings, so an output row cannot start on its own; set "
                    f"`untie: true` in the `eeve:` block of {self._first.config}, or leave `start` out and set its "
                    f"base_model to {self.base}"
                )

    def check_unchanged(self, state: Path) -> None:
        """Raise EEVEError naming what has changed since the model was made, by the file `state` and by its own record."""
        if not self.done:
            return
        now = {**self.state(), "made": self.made()}
        record = read(self.output / START, START_RECORD) or {}
        found = changes(read(state, START_STATE) or self._by_record(record, now), now)
        if found:
            raise EEVEError(
                f"{self.output} is made, but since then {'; '.join(found)}. Put it back, or remove {self.output} to have it "
                "made again"
            )

    def in_its_place(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """The first run's config as it would be without this step: what is not made yet cannot be looked at."""
        block = cfg.get("eeve") or {}
        return {**cfg, "base_model": self.base, "eeve": {**block, "untie": True} if self._untie else block}

    # --- afterwards ---

    def state(self) -> dict[str, Any]:
        """What the started model depends on, as a run's own state has it."""
        texts = {name: each for text in self.texts for name, each in inputs.of_path(text).items()}
        settings = {**self.settings.model_dump(exclude={"output"}), "texts": self.texts, "untie": self._untie}
        return {
            "settings": redacted(settings),
            "tokenizer": redacted(self._first.tokenizer()),
            "starts_from": weights_sha256(self.base),
            "inputs": redacted({**inputs.of_model(self.base), **texts}),
        }

    def made(self) -> inputs.Identity:
        """The started model, by content."""
        weights = {str(self.output / name): each for name, each in weights_sha256(self.output).items()}
        return {**inputs.of_model(self.output), **weights}

    def check_made(self) -> None:
        """Raise EEVEError if its command has ended without a started model."""
        if not self.done:
            raise EEVEError(f"`axolotl {' '.join(self.arguments())}` left no {START} in {self.output}")

    @property
    def _tokenizer(self) -> str:
        return str(self._first.cfg["tokenizer_config"])

    def _by_record(self, record: Mapping[str, Any], now: dict[str, Any]) -> dict[str, Any]:
        """The state of a model that another chain made, or a person, as far as its record tells."""
        before = {**now, "settings": dict(now["settings"])}
        if record.get("base"):
            before["settings"]["base"] = redacted(record["base"])
        if (texts := record.get("texts")) is not None:
            before["settings"]["texts"] = redacted([*texts])
            of_base = inputs.of_model(self.base)
            before["inputs"] = redacted(
                {**of_base, **{name: each for text in texts.values() for name, each in text.items()}}
            )
        return before

    def _keys_without_effect(self) -> Iterator[str]:
        """Keys of the first run that the started model would leave without effect, or in the wrong."""
        cfg, rule = self._first.cfg, self._first.settings.init.output
        if rule != InitSettings().output:
            yield f"says `eeve.init.output: {rule}`, but output rows have started before; remove that, or `start`"
        if cfg.get("revision_of_model"):
            yield (
                "says `revision_of_model`, which is not read here; download that revision, give its directory as the base "
                "of `start`, and remove the key"
            )
        if cfg.get("tokens"):
            yield (
                "adds `tokens`, which get no rows here; add them to the tokenizer (`allow` in its YAML), or leave `start` "
                "out"
            )

    def _check_texts(self, held_out: Mapping[str, str]) -> None:
        for text in self.texts:
            if self._corpus and not self._corpus.done and _within(text, self._corpus.output):
                continue
            check_has_text(text, "start")
        for text in self.texts if self.settings.texts else ():
            for name, path in held_out.items():
                if _within(path, text):
                    raise EEVEError(
                        f"start: {text} has the text {name} in it, which is evaluated on; give others under `texts`"
                    )

    def _to_train_on(self, text: str) -> str:
        """Of a corpus of ours its shards, without what is held out."""
        ours = self._corpus is not None and same_place(text, self._corpus.output)
        return str(Path(text, TRAIN)) if ours or Path(text, CORPUS_MANIFEST).is_file() else text

    def _of_the_run(self) -> list[str]:
        """The local files and directories that the first run trains on."""
        cfg = self._first.cfg
        given = cfg.get("datasets") or cfg.get("pretraining_dataset") or []
        found: list[str] = []
        for entry in [given] if isinstance(given, (Mapping, str)) else given:
            entry = entry if isinstance(entry, Mapping) else {"path": entry}
            local = _local(entry) if _is_plain(entry) else []
            if not local:
                raise EEVEError(
                    f"start: {self._first.config} trains on {entry.get('path')}, which is no local text with a column "
                    "`text`; say under `texts` of `start` what to read"
                )
            found += local
        if not found:
            raise EEVEError(
                f"start: {self._first.config} names no text; say under `texts` of `start` what to read"
            )
        return list(dict.fromkeys(found))


def _is_plain(entry: Mapping[str, Any]) -> bool:
    """Whether Axolotl reads an entry of `datasets` as text, from a column that is called so."""
    kind = str(entry.get("type") or "completion")
    return kind in ("completion", "pretrain") and all(
        (entry.get(key) or "text") == "text" for key in ("field", "text_column")
    )


def _local(entry: Mapping[str, Any]) -> list[str]:
    """The files that an entry names, or its directory; empty where they are on the hub."""
    place = Path(str(entry.get("path") or ""), str(entry.get("data_dir") or ""))
    files = entry.get("data_files") or []
    named = (
        [each for of_split in files.values() for each in _listed(of_split)]
        if isinstance(files, Mapping)
        else files
    )
    found = []
    for name in _listed(named):  # below the directory, or of a kind of file (`path: json`) as they are
        found += matching(str(place / name)) or matching(name)
    if found or named:
        return found
    return [str(place)] if place.exists() and str(place) != "." else []


def _listed(files: Any) -> list[str]:
    return [str(each) for each in files] if isinstance(files, list) else [str(files)]


def _within(path: str | Path, place: str | Path) -> bool:
    return Path(path).resolve().is_relative_to(Path(place).resolve())
