"""`saq-qat-runtime build`: the TensorRT engine of a bundle, built on the machine at hand."""

import argparse
from pathlib import Path

from saq_qat_runtime.cli.arguments import add_bundle, positive

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_bundle(parser)
    parser.add_argument(
        "--flavour",
        choices=("auto", "tensorrt", "tensorrt-rtx"),
        default="auto",
        help="which library builds; auto: TensorRT where it and a GPU are there, else TensorRT-RTX",
    )
    parser.add_argument(
        "--batch",
        nargs=3,
        type=positive,
        metavar=("SMALLEST", "USUAL", "LARGEST"),
        help="batch sizes the engine accepts (default: those of the bundle)",
    )
    parser.add_argument(
        "--workspace-mib", type=positive, help="scratch memory for kernels (default: that of the bundle)"
    )
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="kernel times, read and written; for TensorRT"
    )
    parser.add_argument(
        "--allow-failed-gate", action="store_true", help="keep the engine even if a layer runs in float"
    )


def run(arguments: argparse.Namespace) -> int:
    """Build, audit and write the engine; exit code 4 if no TensorRT library can build here."""
    from saq_qat_runtime.bundle.manifest import Manifest
    from saq_qat_runtime.report.engine_text import engine_text
    from saq_qat_runtime.report.text import printable
    from saq_qat_runtime.tensorrt.build.bundle import add_engine, bundle_options

    folder: Path = arguments.bundle
    options = bundle_options(
        Manifest.load(folder),
        flavour=arguments.flavour,
        batch=arguments.batch,
        workspace_mib=arguments.workspace_mib,
        timing_cache=arguments.timing_cache,
    )
    built = add_engine(folder, options, allow_failed_audit=arguments.allow_failed_gate)
    print(printable("\n".join(engine_text(folder, built))))
    return 0
