"""One entry of a `corpus:` list, and what there is to read in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import model_validator

from eeve_axolotl import inputs
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.paths import files_below, matching
from eeve_axolotl.sources.datasets import SAVED, dataset_shards
from eeve_axolotl.sources.files import FileShard, as_what, is_text
from eeve_axolotl.sources.shard import Document, Shard, SourceKeys


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
        self._check_path()
        return self._shards_of_files() if self.split is None else dataset_shards(self)

    def stream(self) -> Iterator[Document]:
        """The documents of all shards, one in memory at a time. Raises EEVEError as they do."""
        return (document for shard in self.shards() for document in shard.documents())

    def files(self) -> list[Path]:
        """The files that a source without `split` names, sorted; empty if there are none.

        Raises EEVEError for a path that would name more than text was meant.
        """
        self._check_path()
        if Path(self.path).is_dir():  # whatever else lies there is not text
            return sorted(file for file in files_below(self.path) if is_text(file))
        found = [Path(self.path)] if Path(self.path).is_file() else map(Path, matching(self.path))
        return sorted(file for file in found if file.is_file())

    def identity(self) -> inputs.Identity:
        """Its text by content: its files, or of a dataset the directory's or its revision; empty if it is not known."""
        if self.split is None:
            return {str(file): inputs.of_file(file) for file in self.files()}
        self._check_path()
        return inputs.of_text(self.path, self.revision)

    def _check_path(self) -> None:
        """Raise EEVEError for a path that is empty or the root, below which are all files, or that needs a split."""
        if not self.path.strip():
            raise EEVEError(
                "path is empty; give a file, a directory, a pattern with `*`, or a dataset with `split`"
            )
        if self.split is not None or not Path(self.path).is_dir():
            return
        if Path(self.path).resolve() == Path(self.path).resolve().parent:
            raise EEVEError(
                f"path: {self.path} is the whole file system; give the directory that your text is in"
            )
        if any((Path(self.path) / name).is_file() for name in SAVED):
            raise EEVEError(f"path: {self.path} is a dataset that `datasets` has saved; give its `split` too")

    def _shards_of_files(self) -> list[FileShard]:
        files = self.files()
        if not files:
            way = as_what() if Path(self.path).is_dir() else "give the path of your text"
            raise EEVEError(f"the corpus {self.path} matches no file; {way}")
        return [FileShard(file, self) for file in files]


def check_has_text(path: str, what: str) -> None:
    """Raise EEVEError, which begins with `what`, unless there are files of text at `path`."""
    if not Path(path).exists() or not Source(path=path).files():
        raise EEVEError(f"{what}: there is no text in {path}; {as_what()}")
