"""Run a bundle with numpy and one engine; nothing of training is needed."""

__version__ = "0.1.0"

__all__ = ["__version__"]
