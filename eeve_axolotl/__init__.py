"""EEVE for Axolotl: extend a tokenizer, initialise the new rows, train seven stages.

Source: "Efficient and Effective Vocabulary Expansion Towards Multilingual Large Language Models"
(arXiv 2402.14714) and the model card of EEVE-Korean-10.8B-v1.0.
"""

from eeve_axolotl.version import __version__

__all__ = ["EEVEPlugin", "__version__"]


def __getattr__(name: str):
    """Import the plugin when Axolotl asks for it: commands that need no model stay quick."""
    if name == "EEVEPlugin":
        from eeve_axolotl.plugin import EEVEPlugin

        return EEVEPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
