"""A demo's base model, random, and its tokenizer; base.yml then trains it on English.

solar: SOLAR's real tokenizer, which is Mistral-7B's SentencePiece model (Axolotl's dependency mistral_common
carries it), and a Llama-architecture model in SOLAR's shape, scaled down.
qwen: a byte-level BPE in Qwen's manner, learned from English stories, and a Qwen2-architecture model, scaled
down, whose two embedding matrices are one, as small Qwens have it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path

from stories import generate

TABLE_1 = {  # paper, Table 1: tokens under SOLAR's tokenizer
    "안녕하세요, 오늘은 날씨가 좋네요.": 26,
    "Hello, the weather is nice today.": 8,
}


# How Qwen cuts text into words. transformers gives every Qwen2 model this, whatever its tokenizer.json says.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def write_solars_tokenizer(directory: Path) -> None:
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


def write_byte_level_tokenizer(directory: Path, size: int = 2048) -> None:
    """Learn a byte-level BPE of at most `size` tokens from English stories, and write it. Other scripts are bytes to it."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(generate("en", seed=2, documents=2000), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(directory)


def write_solars_shape(directory: Path) -> None:
    """Write a random model: SOLAR's ratios (4 query heads a key head, 3.5 x hidden inside, untied)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        **SIZES,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def write_qwens_shape(directory: Path) -> None:
    """Write a random model: Qwen2's architecture, tied."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(directory)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **SIZES,
    )
    Qwen2ForCausalLM(config).save_pretrained(directory)


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 224,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
BASES = {
    "solar": (write_solars_tokenizer, write_solars_shape),
    "qwen": (write_byte_level_tokenizer, write_qwens_shape),
}


if __name__ == "__main__":
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--base", choices=list(BASES), default="solar")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer, write_model = BASES[arguments.base]
    write_tokenizer(arguments.directory)
    torch.manual_seed(arguments.seed)
    write_model(arguments.directory)
