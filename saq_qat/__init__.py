"""Sharpness-aware quantization, from a recipe to integers that are proved to be the trained ones."""

__version__ = "0.1.0"

__all__ = ["__version__"]
