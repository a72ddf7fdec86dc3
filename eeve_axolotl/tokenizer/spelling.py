"""How a tokenizer family spells text in its vocabulary, and the one spelling that people read.

Everywhere a person sees a token (lists, candidates, reports) it is letters with ▁ for the space before
them. A SentencePiece vocabulary says the same; a byte-level one has a printable character for each byte.
"""

from __future__ import annotations

import pyarrow
from pyarrow import compute

BOUNDARY = "▁"  # SentencePiece's spelling of a space


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, as byte-level BPE vocabularies spell them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + n): byte for n, byte in enumerate(others)})
    return alphabet


def is_superword(token: str) -> bool:
    """Whether what people read, or a SentencePiece vocabulary has, reaches over a space between other characters."""
    return BOUNDARY in token.strip(BOUNDARY)


class Spelling:
    """SentencePiece's: the vocabulary holds what people read."""

    def spell(self, text: str) -> str:
        """Text with ▁ for a space, in the vocabulary's alphabet."""
        return text

    def read(self, token: str) -> str:
        """A token's text with ▁ for a space; bytes that are no whole character as <0xED>."""
        return token

    def lengths(self, tokens: pyarrow.Array) -> pyarrow.Array:
        """How many characters the text of each of `tokens` has: int32."""
        return compute.utf8_length(tokens)


class ByteLevel(Spelling):
    """Byte-level BPE's (GPT-2, Llama-3, Qwen): the UTF-8 bytes, each as a printable character."""

    def __init__(self) -> None:
        self._bytes = {ord(character): byte for character, byte in byte_level_alphabet().items()}
        self._characters = {byte: chr(code) for code, byte in self._bytes.items()}
        #: A pattern for the bytes of a character but its first.
        self._continuation = f"[{''.join(self._characters[byte] for byte in range(0x80, 0xC0))}]"

    def spell(self, text: str) -> str:
        """Text with ▁ for a space, in the vocabulary's alphabet."""
        return self.spell_bytes(text.replace(BOUNDARY, " ").encode("utf-8", "surrogatepass"))

    def spell_bytes(self, raw: bytes) -> str:
        """Bytes in the vocabulary's alphabet."""
        return "".join(map(self._characters.__getitem__, raw))

    def read(self, token: str) -> str:
        """A token's text with ▁ for a space; bytes that are no whole character as <0xED>."""
        text = self.bytes(token).decode("utf-8", "surrogateescape").replace(" ", BOUNDARY)
        return "".join(
            f"<0x{ord(char) - 0xDC00:02X}>" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in text
        )

    def lengths(self, tokens: pyarrow.Array) -> pyarrow.Array:
        """How many characters the text of each of `tokens` has, or begins to have: int32."""
        continuing = compute.count_substring_regex(tokens, self._continuation)
        return compute.subtract(compute.utf8_length(tokens), continuing)

    def bytes(self, token: str) -> bytes:
        """The bytes that a token stands for."""
        return bytes(map(self._bytes.__getitem__, map(ord, token)))


def steps(part: dict | None) -> list[dict]:
    """The steps of a normalizer or pre-tokenizer in a tokenizer's JSON."""
    if not part:
        return []
    return part.get("normalizers", part.get("pretokenizers", [part]))


def is_byte_level(state: dict) -> bool:
    """Whether a tokenizer's JSON spells text in bytes."""
    return any(step["type"] == "ByteLevel" for step in steps(state["pre_tokenizer"]))


def has_pattern(state: dict) -> bool:
    """Whether a byte-level tokenizer's pre-tokenizer cuts a text into words."""
    return any(
        step["type"] == "Split" or (step["type"] == "ByteLevel" and step.get("use_regex", True))
        for step in steps(state["pre_tokenizer"])
    )


def spelling_of(state: dict) -> Spelling:
    """The spelling of a tokenizer's JSON."""
    return ByteLevel() if is_byte_level(state) else Spelling()
