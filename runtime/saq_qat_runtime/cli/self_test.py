"""`saq-qat-runtime self-test`: does the bundle compute here what it must?"""

import argparse

from saq_qat_runtime.cli.arguments import add_bundle, add_how_to_run

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_bundle(parser)
    add_how_to_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the golden images; exit code 1 if logits differ by more than allowed."""
    from saq_qat_runtime.report.session_text import self_test_text
    from saq_qat_runtime.report.text import printable
    from saq_qat_runtime.session import Session

    with Session.load(
        arguments.bundle,
        arguments.backend,
        threads=arguments.threads,
        allow_failed_gate=arguments.allow_failed_gate,
    ) as session:
        found = session.self_test()
        print(printable("\n".join(self_test_text(session.info, found, session.integer_count()))))
    return 0
