"""`saq-qat eval`: accuracy of a trained network, as it trains and as it will be deployed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from saq_qat.cli.console import print_file, progress, resolve_run

__all__ = ["evaluate_run"]


def evaluate_run(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option(
            "--checkpoint", help="Which checkpoint of the run; the best of its last stage if left out."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print eval.json instead of text.")] = False,
) -> None:
    """Evaluate a run on its validation images: fake-quant and deploy view, in all and by class.

    Writes report/eval.json, and the answer to each image into report/predictions.csv.
    """
    import torch

    from saq_qat.report.evaluation import (
        EVALUATION_FILE,
        PREDICTIONS_FILE,
        evaluate_checkpoint,
        images_to_classify,
    )
    from saq_qat.report.evaluation_text import evaluation_lines
    from saq_qat.train.choose import choose_checkpoint
    from saq_qat.train.restore import restore
    from saq_qat_runtime.report.narrow import fitted

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = resolve_run(run)
    choice = choose_checkpoint(folder, checkpoint)
    restored = restore(folder, choice.taken.name)
    report = folder / "report"
    with progress("eval", images_to_classify(restored)) as shown:
        evaluation = evaluate_checkpoint(restored, choice.taken.name, device, report, shown.advance)
    if as_json:
        print_file(report / EVALUATION_FILE)
        return
    for line in fitted([str(restored.run), *str(choice).splitlines(), *evaluation_lines(evaluation)]):
        typer.echo(line)
    typer.echo(f"\nwrote {report / EVALUATION_FILE}\n      {report / PREDICTIONS_FILE}")
