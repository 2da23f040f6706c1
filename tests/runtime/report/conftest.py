"""The made-up measurements of the report's tests."""

from tests.report.conftest import bench, slow_float_bench

__all__ = ["bench", "slow_float_bench"]
