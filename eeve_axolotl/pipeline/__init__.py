"""The chain: tokenizer, runs of `axolotl train`, merges, evaluations and the report, as one command."""
