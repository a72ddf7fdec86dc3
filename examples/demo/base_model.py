"""The demo's base: SOLAR's real tokenizer, and a Llama-architecture model in SOLAR's shape, scaled down.

The tokenizer is Mistral-7B's SentencePiece model, which SOLAR uses too; Axolotl's dependency
mistral_common carries it. The model starts random; base.yml then trains it on English.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path

TABLE_1 = {  # paper, Table 1: tokens under SOLAR's tokenizer
    "안녕하세요, 오늘은 날씨가 좋네요.": 26,
    "Hello, the weather is nice today.": 8,
}


def write_tokenizer(directory: Path) -> None:
    """Write SOLAR's tokenizer as a fast tokenizer, and check it against the paper's Table 1."""
    from transformers import AutoTokenizer

    package = Path(importlib.util.find_spec("mistral_common").origin).parent
    shutil.copy(package / "data" / "tokenizer.model.v1", directory / "tokenizer.model")
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text, tokens in TABLE_1.items():
        found = len(tokenizer.tokenize(text))
        if found != tokens:
            raise SystemExit(f"this is not SOLAR's tokenizer: {text!r} is {found} tokens, not {tokens}")
    tokenizer.save_pretrained(directory)


def write_model(directory: Path, seed: int) -> None:
    """Write a random model: SOLAR's ratios (4 query heads a key head, 3.5 x hidden inside, untied)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=64,
        intermediate_size=224,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(arguments.directory)
    write_model(arguments.directory, arguments.seed)
