"""Mistral's `tekken.json` as a fast tokenizer: byte-level BPE that names ranks instead of merges."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from eeve_axolotl.tokenizer.spelling import ByteLevel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def is_tekken(file: Path) -> bool:
    """Whether a file has a tekken file's name (`tekken.json`, `tekken_240911.json`)."""
    return file.suffix == ".json" and file.name.startswith("tekken")


def load(file: Path) -> PreTrainedTokenizerFast:
    """A transformers fast tokenizer with the ids of mistral_common's: special tokens first, then ranks.

    Raises ValueError for a file that is no tekken file.
    """
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        config, theirs = raw["config"], Tekkenizer.from_file(file)
    except (KeyError, AssertionError) as error:
        raise ValueError(f"not a tekken file: {type(error).__name__} {error}") from None
    first = theirs.num_special_tokens
    entries = raw["vocab"][: config["default_vocab_size"] - first]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in entries}
    spell = ByteLevel().spell_bytes
    special = [theirs.id_to_piece(i) for i in range(first)]
    vocab = {token: i for i, token in enumerate(special)}
    vocab |= {spell(token): first + rank for token, rank in ranks.items()}
    merges = [tuple(map(spell, _halves(token, ranks))) for token in ranks if len(token) > 1]
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(config["pattern"]), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """What a token's bytes fall into before the last merge, which makes it."""
    parts = [token[n : n + 1] for n in range(len(token))]
    never = len(ranks)
    while len(parts) > 2:
        ways = [ranks.get(left + right, never) for left, right in itertools.pairwise(parts)]
        at = min(range(len(ways)), key=ways.__getitem__)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]
