"""One entry of a `corpus:` list, and what there is to read in it."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from pydantic import model_validator

from eeve_axolotl import inputs
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources.datasets import dataset_shards
from eeve_axolotl.sources.files import FileShard, is_text
from eeve_axolotl.sources.shard import Shard, SourceKeys


class Source(SourceKeys):
    """One entry of a `corpus:` list: files, or with `split` a Hugging Face dataset, and where the text is in them."""

    @model_validator(mode="after")
    def _dataset(self) -> Source:
        if self.split is None and (self.name or self.revision or self.documents):
            raise ValueError(
                "`name`, `revision` and `documents` are for Hugging Face datasets; give `split` too, or leave them out"
            )
        return self

    def shards(self) -> Sequence[Shard]:
        """What can be read on its own: the files, sorted by name, or the dataset's shards.

        Raises EEVEError if there is nothing.
        """
        return self._shards_of_files() if self.split is None else dataset_shards(self)

    def files(self) -> list[Path]:
        """The files that a source without `split` names, sorted; empty if there are none."""
        directory = Path(self.path).is_dir()
        names = glob.glob(f"{self.path}/**/*" if directory else self.path, recursive=True)
        files = sorted(Path(name) for name in names if Path(name).is_file())
        if directory:  # whatever else lies there is not text
            files = [file for file in files if is_text(file)]
        return files

    def identity(self) -> inputs.Identity:
        """Its text by content: its files, or of a dataset the directory's or its revision; empty if it is not known."""
        if self.split is None:
            return {str(file): inputs.of_file(file) for file in self.files()}
        return inputs.of_text(self.path, self.revision)

    def _shards_of_files(self) -> list[FileShard]:
        files = self.files()
        if not files:
            raise EEVEError(f"the corpus {self.path} matches no file; give the path of your text")
        return [FileShard(file, self) for file in files]
