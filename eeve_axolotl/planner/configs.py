"""The config.json of base models that cannot be asked for without the network: only what gives the shape.

Source: each model's config.json on the hub, as its hub name says. `tests/planner/test_shapes.py` holds the
parameter counts that follow from them against those that the hub states.
"""

from __future__ import annotations

_LLAMA_3 = {"model_type": "llama", "vocab_size": 128_256, "num_attention_heads": 32, "num_key_value_heads": 8}

CONFIGS: dict[str, dict] = {
    "upstage/SOLAR-10.7B-v1.0": {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    "microsoft/phi-2": {
        "model_type": "phi",
        "vocab_size": 51_200,
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "partial_rotary_factor": 0.4,
        "tie_word_embeddings": False,
    },
    "meta-llama/Llama-3.1-8B": {
        **_LLAMA_3,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "tie_word_embeddings": False,
    },
    "meta-llama/Llama-3.2-1B": {
        **_LLAMA_3,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-1.5B": {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "google/gemma-2-2b": {
        "model_type": "gemma2",
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "tie_word_embeddings": True,
    },
}
