"""`python -m saq_qat_runtime.serve BUNDLE`: the command `saq-qat-runtime serve` by itself."""

import argparse
import sys

from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.serve.command import add_arguments, run

__all__ = ["main"]


def main() -> int:
    """Run it, and say an error in one message."""
    parser = argparse.ArgumentParser(
        "python -m saq_qat_runtime.serve", description="Serve bundles over HTTP."
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except SessionError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
