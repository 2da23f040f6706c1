"""`saq-qat-runtime verify`: how far does the engine here depart from the network that was trained?"""

import argparse
from pathlib import Path

from saq_qat_runtime.cli.arguments import (
    add_bundle,
    add_how_to_run,
    add_measuring,
    bench_size,
    positive,
)

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_bundle(parser)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="validation images of expected.csv"
    )
    add_how_to_run(parser)
    parser.add_argument("--batch", type=positive, default=32, help="images at once (default: 32)")
    parser.add_argument("--bench", action="store_true", help="measure the latency of the engine too")
    add_measuring(parser, alone=False)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON to a file too")


def run(arguments: argparse.Namespace) -> int:
    """Compare answers, codes and golden logits; exit code 1 past the thresholds of the recipe."""
    from saq_qat_runtime.bundle.expected import read_expected
    from saq_qat_runtime.bundle.result_files import result_json, write_result
    from saq_qat_runtime.cli.progress import counted, stepwise
    from saq_qat_runtime.report.text import printable
    from saq_qat_runtime.report.verify_text import verify_text
    from saq_qat_runtime.session import Session
    from saq_qat_runtime.verify.run import measured, to_json, verify_session

    folder: Path = arguments.bundle
    session = Session.load(
        folder, arguments.backend, threads=arguments.threads, allow_failed_gate=arguments.allow_failed_gate
    )
    with session:
        total = len(read_expected(folder, session.info.manifest))
        with counted("verify", total, "images") as advance:
            found = verify_session(session, folder, arguments.data, batch=arguments.batch, on_images=advance)
    if arguments.bench:
        found = measured(found, folder, bench_size(arguments), stepwise("bench"))
    if arguments.output is not None:
        write_result(arguments.output, to_json(found))
    if arguments.json:
        print(result_json(to_json(found), "verify"), end="")
    else:
        print(printable("\n".join(verify_text(found, session.info.manifest.labels))))
    found.require_passed()
    return 0
