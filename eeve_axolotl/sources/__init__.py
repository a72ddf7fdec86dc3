"""Reading documents: files (JSON lines, Parquet, plain text, compressed or not) and Hugging Face datasets."""

from eeve_axolotl.sources.datasets import DatasetShard
from eeve_axolotl.sources.files import FileShard
from eeve_axolotl.sources.shard import Document, Shard, text_of
from eeve_axolotl.sources.source import Source, check_has_text

__all__ = ["DatasetShard", "Document", "FileShard", "Shard", "Source", "check_has_text", "text_of"]
