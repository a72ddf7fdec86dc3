"""Loggers whose lines Axolotl prints: it hides those whose name does not begin with its own."""

import logging


def logger(room: str) -> logging.Logger:
    """The logger of one room of this package."""
    return logging.getLogger(f"axolotl.eeve.{room}")
