"""Not yet."""

from tests.gpu.options import Options


def run_rtx_part(options: Options) -> None:
    """Nothing."""
