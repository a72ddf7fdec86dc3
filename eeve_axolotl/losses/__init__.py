"""Losses of the head: the arithmetic (knows nothing of models), and how a transformers model is made to use it."""
