"""Documents are run by the command line of tests/cli."""

from tests.cli.conftest import saq_qat

__all__ = ["saq_qat"]
