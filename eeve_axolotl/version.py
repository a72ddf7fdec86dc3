"""The version, in a module that imports nothing: records name it."""

__version__ = "0.1.0"
