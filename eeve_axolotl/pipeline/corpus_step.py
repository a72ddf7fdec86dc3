"""The corpus as a step of the chain: what it must have in common with the runs that read it, and what has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eeve_axolotl.corpus.manifest import check_length, held_out_file, paths_read, read_manifest
from eeve_axolotl.corpus.origin import local_sources, what_changed
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.paths import same_place
from eeve_axolotl.pipeline.runs import Run
from eeve_axolotl.records import CORPUS_MANIFEST
from eeve_axolotl.settings import read_yaml
from eeve_axolotl.tokenizer.settings import TokenizerSettings


class CorpusStep:
    """`axolotl eeve corpus CONFIG` in a chain."""

    def __init__(self, config: str):
        self.config = config
        self.settings = read_yaml(config, CorpusSettings)
        self.output = Path(self.settings.output)

    @property
    def done(self) -> bool:
        """Whether the corpus is there: its manifest comes with it, as a whole."""
        return (self.output / CORPUS_MANIFEST).is_file()

    def makes(self, path: str) -> bool:
        """Whether `path` is held-out text that the corpus will have."""
        return any(same_place(path, held_out_file(self.output, group)) for group in self.settings.mix)

    def held_out(self) -> str:
        """The files of held-out text that it has, for a sentence."""
        return ", ".join(str(held_out_file(self.output, group)) for group in self.settings.mix)

    def check(self, runs: list[Run], tokenizer: str | None, texts: Mapping[str, str]) -> None:
        """Raise EEVEError, before any work, for a corpus that does not fit the chain.

        Args:
            runs: the chain's, which are to read it.
            tokenizer: the YAML of the chain's tokenizer, if that is a step too.
            texts: what is evaluated on.
        """
        self._check_tokenizer(runs, tokenizer)
        readers = [
            (run, key)
            for run in runs
            for key in ("datasets", "pretraining_dataset")
            for paths in paths_read(run.cfg, key)
            if any(map(self._is_in_it, paths))
        ]
        if not readers:
            raise EEVEError(
                f"corpus: no run reads {self.output}, which {self.config} writes; set `datasets: [{{path: {self.output}, "
                "type: completion, split: train}]` in the runs, or leave `corpus` out of the pipeline"
            )
        for run, key in readers:
            check_length(run.cfg, self.settings.write.longest_record, self.output, key)
        if not self.settings.held_out.share and (
            names := [name for name in texts if self.makes(texts[name])]
        ):
            raise EEVEError(
                f"evaluate: the text {names[0]} is held out by {self.config}, whose `held_out.share` is 0; give it a share"
            )
        if not self.done:
            for source in local_sources(self.settings):
                if not source.files():
                    raise EEVEError(
                        f"{self.config}: the source {source.path} matches no file; give the path of your text"
                    )

    def check_unchanged(self) -> None:
        """Raise EEVEError naming what has changed since the corpus was made."""
        made = read_manifest(self.output) if self.done else None
        if made and (found := what_changed(made, self.settings)):
            raise EEVEError(
                f"{self.output} is made, but since then in {self.config} {'; '.join(found)}. Put it back, or remove "
                f"{self.output} to have it made again"
            )

    def check_made(self) -> None:
        """Raise EEVEError if its command has ended without a corpus: on a cluster it only queues the work."""
        if not self.done:
            raise EEVEError(
                f"{self.output} is not there yet: `axolotl eeve corpus {self.config}` has queued its work; run the same "
                "command again when it is done"
            )

    def _check_tokenizer(self, runs: list[Run], config: str | None) -> None:
        wanted = self.settings.tokenizer
        if config and not same_place(built := read_yaml(config, TokenizerSettings).output, wanted):
            raise EEVEError(
                f"corpus: {self.config} is made with the tokenizer {wanted}, but {config} builds {built}; use one in both"
            )
        for run in runs:
            theirs = run.cfg.get("tokenizer_config") or run.cfg["base_model"]
            if not same_place(theirs, wanted):
                raise EEVEError(
                    f"corpus: {self.config} is made with the tokenizer {wanted}, but {run.config} trains with {theirs}; "
                    "use one in both"
                )

    def _is_in_it(self, path: str) -> bool:
        return Path(path).absolute().is_relative_to(self.output.absolute())
