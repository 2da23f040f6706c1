"""`saq-qat eval`: accuracy of a trained network, as it trains and as it will be deployed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from saq_qat.cli.console import resolve_run, table

__all__ = ["evaluate_run"]


def evaluate_run(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option(
            "--checkpoint", help="Which checkpoint of the run; the best of its last stage if left out."
        ),
    ] = None,
) -> None:
    """Evaluate a run on its validation images: fake-quant and deploy view; writes report/eval.json."""
    import torch

    from saq_qat.report.evaluation import evaluation_of, write_evaluation
    from saq_qat.train.choose import choose_checkpoint
    from saq_qat.train.distributed import Processes
    from saq_qat.train.evaluate import evaluate_both
    from saq_qat.train.restore import restore

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = resolve_run(run)
    choice = choose_checkpoint(folder, checkpoint)
    restored = restore(folder, choice.taken.name)
    found, deployed = evaluate_both(
        restored.network.to(device), restored.plan, restored.recipe, restored.images, Processes(0, 1, device)
    )
    rows = [("float" if restored.form == "float" else "fake-quant", found)]
    rows += [("deploy view", deployed)] if deployed is not None else []
    typer.echo(f"{restored.run}\n{choice}")
    table(
        ["network", "top-1 %", "top-5 %", "loss", "images"],
        [(name, f"{a.top1:.2f}", f"{a.top5:.2f}", f"{a.loss:.4f}", str(a.count)) for name, a in rows],
    )
    path = folder / "report" / "eval.json"
    write_evaluation(evaluation_of(restored, choice.taken.name, found, deployed), path)
    typer.echo(f"\nwrote {path}")
