"""A Hugging Face dataset as shards: streamed, from the hub or from a directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eeve_axolotl import inputs
from eeve_axolotl.errors import EEVEError, if_offline
from eeve_axolotl.sources.shard import TURN, Record, Shard, SourceKeys, first_line

if TYPE_CHECKING:  # `datasets` takes seconds to import, and files do without it
    from datasets import IterableDataset

SAVED = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in a dataset's directory."""


@dataclass(frozen=True)
class DatasetShard(Shard):
    """One of `count` shards of a streamed Hugging Face dataset."""

    source: SourceKeys
    index: int
    count: int

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.source.path}:{self.source.name or 'default'}:{self.source.split}:{self.index}"

    def size(self) -> int:
        """0: how many bytes it has is not known before it is read."""
        return 0

    def identity(self) -> list[Any]:
        """What its documents depend on: the dataset's files, as far as they are known, and how it is read."""
        version = inputs.of_path(self.source.path) or _load(self.source)[1]
        return [self.index, self.count, version, self.source.model_dump(mode="json")]

    def _records(self, number: int, of: int, only: list[str] | None) -> Iterator[tuple[int, Record]]:
        row = 0
        try:
            data = _load(self.source)[0].shard(self.count, self.index)
            if self.source.documents:
                data = data.take(-(-self.source.documents // self.count))
            for row, record in enumerate(data, start=1):
                if row // TURN % of == number:
                    yield row, record
        except EEVEError:
            raise
        except Exception as error:  # whatever datasets, fsspec and the network raise
            raise EEVEError(f"{self.place}: broke off after row {row:,} ({first_line(error)})") from None


def dataset_shards(source: SourceKeys) -> list[DatasetShard]:
    """The shards of the dataset that `source` names. Raises EEVEError if it cannot be read."""
    count = _load(source)[0].num_shards
    return [DatasetShard(source, index, count) for index in range(count)]


def _load(source: SourceKeys) -> tuple[IterableDataset, str]:
    """A dataset's split as `datasets` streams it, and what tells its versions apart."""
    from datasets import load_dataset_builder, load_from_disk

    try:
        if any((Path(source.path) / name).exists() for name in SAVED):
            saved = load_from_disk(source.path)
            data = saved[source.split] if isinstance(saved, dict) else saved
            return data.to_iterable_dataset(), data._fingerprint
        builder = load_dataset_builder(source.path, source.name, revision=source.revision)
        files = (builder.config.data_files or {}).get(source.split, [])
        version = str([list(map(str, files)), getattr(files, "origin_metadata", [])])
        return builder.as_streaming_dataset(split=source.split), version
    except Exception as error:  # a dozen kinds, all of them about the name, the configuration or the network
        raise EEVEError(
            f"the dataset {source.path} cannot be read ({first_line(error)}); correct path, name or split{if_offline()}"
        ) from None
