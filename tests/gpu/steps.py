"""Not yet."""

from tests.gpu.options import Options


def run_steps_part(options: Options) -> None:
    """Nothing."""
