"""`saq-qat-runtime bench`: latency of a bundle on the engines of this machine."""

import argparse
from pathlib import Path

from saq_qat_runtime.cli.arguments import add_backend, add_bundle, add_measuring, bench_size

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    from saq_qat_runtime.bench.run import BACKEND_CHOICES

    add_bundle(parser)
    add_backend(
        parser,
        BACKEND_CHOICES,
        "what runs the bundle; auto: the CPU, and a GPU where one can run it (default)",
    )
    add_measuring(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write bench.json and samples.json too")


def run(arguments: argparse.Namespace) -> int:
    """Measure the bundle on its golden images; exit code 4 if the backend asked for cannot run here."""
    from dataclasses import asdict

    from saq_qat_runtime.bench.record import write_bench
    from saq_qat_runtime.bench.run import bench_bundle
    from saq_qat_runtime.bundle.result_files import result_json
    from saq_qat_runtime.cli.progress import stepwise
    from saq_qat_runtime.report.bench_text import bench_text
    from saq_qat_runtime.report.text import printable

    size = bench_size(arguments)
    found, samples = bench_bundle(arguments.bundle, size, stepwise("bench"), backend=arguments.backend)
    if arguments.output is not None:
        write_bench(found, samples, arguments.output)
    if arguments.json:
        print(result_json(asdict(found), "bench"), end="")
    else:
        print(printable("\n".join(bench_text(found))))
    return 0
