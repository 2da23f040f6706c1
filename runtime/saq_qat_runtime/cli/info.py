"""`saq-qat-runtime info`: what a bundle is."""

import argparse

from saq_qat_runtime.cli.arguments import add_bundle

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_bundle(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest, checked, instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Check every file of the bundle and print what its manifest says; loads no engine."""
    from saq_qat_runtime.bundle.manifest import Manifest
    from saq_qat_runtime.report.info_text import info_text
    from saq_qat_runtime.report.text import printable

    manifest = Manifest.load(arguments.bundle)
    if arguments.json:
        print(manifest.to_json(), end="")
    else:
        print(printable("\n".join(info_text(manifest, arguments.bundle))))
    return 0
