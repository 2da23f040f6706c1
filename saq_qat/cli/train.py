"""`saq-qat train`: from a recipe to a trained network, or on from where a training stopped."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saq_qat.cli.console import is_quiet, newest_run, progress, resolve_run
from saq_qat.cli.untrained import deployable, untrained
from saq_qat.errors import LegalityError, RecipeError

if TYPE_CHECKING:
    from saq_qat.recipe.schema import Recipe
    from saq_qat.train.distributed import Processes
    from saq_qat.train.progress import Progress as TrainingProgress
    from saq_qat.train.progress import TeacherAccuracy, TrainingResult

__all__ = ["train"]

_MUCH = 0.05


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe's file; with --resume, a run's folder if you like.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values to set, as train.stages.0.lr=0.01."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run named, else the recipe's newest, else the newest of all."
        ),
    ] = False,
    runs: Annotated[Path, typer.Option("--runs", help="Folder that holds all runs.")] = Path("runs"),
) -> None:
    """Train a recipe. Under torchrun, all processes train together."""
    from saq_qat.train.distributed import joined_processes
    from saq_qat.train.folder import removed_unless_started
    from saq_qat.train.run import run_training

    # A launcher that restarts its processes repeats their arguments; only the environment tells.
    resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    with joined_processes() as processes:
        if resume:
            loaded, folder = _existing_run(recipe, overrides or (), runs)
        else:
            loaded, folder = _new_run(recipe, overrides or (), runs, processes)
        started = nullcontext() if resume or not processes.is_first else removed_unless_started(folder)
        with started, _shown(folder, quiet=is_quiet() or not processes.is_first) as on_progress:
            result = run_training(loaded, folder, resume=resume, on_progress=on_progress)
        if processes.is_first:
            _print_result(result)


def _new_run(
    recipe: Path | None, overrides: Sequence[str], runs: Path, processes: "Processes"
) -> tuple["Recipe", Path]:
    from saq_qat.data.batches import steps_per_epoch
    from saq_qat.recipe.load import load_recipe
    from saq_qat.train.folder import create_run_folder

    if recipe is None:
        raise RecipeError(
            "train needs a recipe: saq-qat train recipe.yaml; 'saq-qat init' writes one to start from"
        )
    loaded = load_recipe(recipe, overrides)
    processes.share_of(loaded.train.batch_size, loaded.train.micro_batch_size)
    if not processes.is_first:
        return loaded, Path(processes.same_text(""))
    model, images = untrained(loaded)
    steps_per_epoch(images, loaded.train.batch_size)
    for finding in deployable(model, loaded, images):
        if finding.level == "error":
            raise LegalityError(f"{recipe}: {finding}")
    folder = create_run_folder(runs, loaded.name, recipe.read_bytes(), overrides)
    return loaded, Path(processes.same_text(str(folder)))


def _existing_run(recipe: Path | None, overrides: Sequence[str], runs: Path) -> tuple["Recipe", Path]:
    from saq_qat.recipe.load import load_recipe

    if recipe is not None and not recipe.is_dir():
        loaded = load_recipe(recipe, overrides)
        return loaded, newest_run(runs / loaded.name)
    folder = newest_run(runs) if recipe is None else resolve_run(recipe)
    return load_recipe(folder / "resolved.yaml", overrides), folder


@contextmanager
def _shown(folder: Path, *, quiet: bool) -> Iterator[Callable[["TrainingProgress"], None]]:
    """A progress bar over all steps, and a line for each epoch."""
    if quiet:
        yield lambda _: None
        return
    typer.echo(f"run {folder}")
    with ExitStack() as context:
        bar, done = None, 0

        def show(state: "TrainingProgress") -> None:
            nonlocal bar, done
            if bar is None:
                if state.teacher is not None:
                    typer.echo(_teacher_line(state.teacher))
                if state.first_step:
                    typer.echo(f"goes on behind step {state.first_step} of {state.steps}")
                done = state.first_step
                bar = context.enter_context(progress("train", state.steps, done))
            if state.top1 is not None:
                bar.tell(_epoch_line(state))
            else:
                bar.advance(state.step - done, note=_note(state))
            done = state.step

        yield show


def _teacher_line(teacher: "TeacherAccuracy") -> str:
    return f"teacher {teacher.source}: top-1 {teacher.top1:.2f} %, top-5 {teacher.top5:.2f} %"


def _note(state: "TrainingProgress") -> str:
    where = f"batch {state.batch}/{state.batches}" if _at_rest(state) else f"{state.epoch}/{state.epochs}"
    return f"{state.stage} {where} loss {state.loss:.3f} {state.images_per_second:.0f} images/s"


def _epoch_line(state: "TrainingProgress") -> str:
    what = f"of {state.batches} batches" if _at_rest(state) else f"epoch {state.epoch}/{state.epochs}"
    stage = f"stage {state.stage_number}/{state.stages}, " if state.stages > 1 else ""
    loss = "" if state.stage == "calibration" else f"loss {state.loss:.4f}, "
    line = f"{stage}{state.stage} {what}: {loss}top-1 {state.top1:.2f} %"
    return line if state.deploy_top1 is None else f"{line}, deployed {state.deploy_top1:.2f} %"


def _at_rest(state: "TrainingProgress") -> bool:
    """Whether the stage takes batches but no steps."""
    return state.stage in ("calibration", "statistics")


def _print_result(result: "TrainingResult") -> None:
    line = f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %"
    if result.deploy_top1 is not None:
        line += f", deployed top-1 {result.deploy_top1:.2f} %"
    steps = f"{result.steps} steps"
    if result.steps_now != result.steps:
        steps += f" ({result.steps_now} of them now)"
    typer.echo(f"{line}\n(best {result.best_top1:.2f} %), after {steps} in {result.seconds:.1f} s")
    share = result.waited / result.seconds
    if share > _MUCH:
        typer.echo(
            f"{100 * share:.0f} % of the time passed in waiting for images; data.workers: N prepares them "
            "beside the steps, in N processes"
        )
    typer.echo(f"run {result.folder}")
    if result.deploy_top1 is not None:
        typer.echo(f"next: saq-qat export {result.folder}")
