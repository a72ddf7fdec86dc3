"""One entry of a `corpus:` list, and what there is to read in it."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from pydantic import model_validator

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
        return self._files() if self.split is None else dataset_shards(self)

    def _files(self) -> list[FileShard]:
        directory = Path(self.path).is_dir()
        names = glob.glob(f"{self.path}/**/*" if directory else self.path, recursive=True)
        files = sorted(Path(name) for name in names if Path(name).is_file())
        if directory:  # whatever else lies there is not text
            files = [file for file in files if is_text(file)]
        if not files:
            raise EEVEError(f"the corpus {self.path} matches no file; give the path of your text")
        return [FileShard(file, self) for file in files]
