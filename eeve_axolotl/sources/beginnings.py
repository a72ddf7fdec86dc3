"""What the first bytes of a file say that is not the text that its name promises."""

from __future__ import annotations

import codecs
from pathlib import Path

from eeve_axolotl.errors import EEVEError

BOM = codecs.BOM_UTF8
"""Windows programs write it before UTF-8. It is no part of the text."""

_WIDE = (  # UTF-32 first: its mark begins like UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
_PACKED = (
    (b"\x1f\x8b", "gzip", ".gz"), (b"BZh", "bzip2", ".bz2"), (b"\xfd7zXZ\x00", "xz", ".xz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", ".zst"), (b"PK\x03\x04", "a ZIP archive", ""), (b"7z\xbc\xaf", "a 7-Zip archive", ""),
    (b"\x04\x22\x4d\x18", "LZ4", ""), (b"PAR1", "Parquet", ".parquet"), (b"ARROW1", "an Arrow file", ""),
    (b"%PDF-", "a PDF", ""),
)  # fmt: skip
_TAR = (257, b"ustar")
_MANY = 0.2  # of the first bytes are zero in UTF-16 without a mark; in a text in UTF-8 none is


def check_beginning(file: Path, head: bytes) -> None:
    """Raise EEVEError if `head`, the first bytes of what should be lines in UTF-8, are of something else."""
    for mark, name in _WIDE:
        if head.startswith(mark):
            raise _not_utf8(file, name)
    for mark, name, ending in _PACKED:
        if head.startswith(mark):
            way = f"name it with {ending} at its end" if ending else "unpack it"
            raise EEVEError(f"{file}: what is in it is {name}, not text; {way}")
    at, mark = _TAR
    if head[at : at + len(mark)] == mark:
        raise EEVEError(f"{file}: what is in it is a tar archive, not text; unpack it")
    head = head[:4096]
    if head.count(0) > _MANY * len(head):
        raise _not_utf8(file, "UTF-16" if head.count(0) <= 0.6 * len(head) else "UTF-32")


def check_packed(file: Path) -> None:
    """Raise EEVEError if a file that is named like a compressed one is plain text."""
    with file.open("rb") as stream:
        head = stream.read(64)
    if head and not any(head.startswith(mark) for mark, _, _ in _PACKED) and head.isascii():
        raise EEVEError(f"{file}: it is not compressed; take {file.suffix} off its name")


def _not_utf8(file: Path, name: str) -> EEVEError:
    return EEVEError(
        f"{file}: it is in {name}; write it in UTF-8 (iconv -f {name} -t UTF-8 {file.name} does)"
    )
