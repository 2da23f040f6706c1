"""The trained and exported run of the report's tests."""

from tests.report.conftest import exported

__all__ = ["exported"]
