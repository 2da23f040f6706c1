"""The version of saq-qat, for those below the door of the package."""

__all__ = ["__version__"]

__version__ = "0.1.0"
