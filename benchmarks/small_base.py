"""What two benchmarks train as a small base of SOLAR's kind: its tokenizer and its shape."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def write_tokenizer(directory: Path, texts: Iterable[str], tokens: int) -> None:
    """A SentencePiece BPE with byte fallback, SOLAR's type, of the lines of `texts` that are ASCII."""
    from sentencepiece import SentencePieceTrainer
    from transformers import AutoTokenizer

    directory.mkdir(parents=True, exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n") if line.isascii()),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=tokens,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    settings = {"tokenizer_class": "LlamaTokenizer", "add_eos_token": False, **names}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    AutoTokenizer.from_pretrained(directory).save_pretrained(directory)


def random_model(tokens: int, length: int, *, width: int, inner: int, layers: int, heads: int, groups: int):
    """A Llama with an embedding matrix at each end, of seed 0; `groups` is how many heads keys and values have."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokens,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            max_position_embeddings=length,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
