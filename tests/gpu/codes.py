"""Not yet."""

from tests.gpu.options import Options


def run_codes_part(options: Options) -> None:
    """Nothing."""
