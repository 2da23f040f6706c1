"""`saq-qat bench`: latency of a bundle beside its baselines, or the cost of a recipe's training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.console import progress, resolve_run
from saq_qat.errors import RecipeError

if TYPE_CHECKING:
    from saq_qat_runtime.bench.cpu import BenchSize
    from saq_qat_runtime.bench.run import BackendChoice

__all__ = ["bench"]


_Backend = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-lean", "tensorrt-rtx"]
_BACKEND = typer.Option(
    "--backend", help="What runs the bundle. auto: the CPU, and a GPU where one can run it."
)
_ENGINE = typer.Option("--engine", hidden=True, help="--backend, as it was called first.")
_BASELINES = typer.Option(
    "--baselines/--no-baselines", help="Measure float and static int8 forms of the network beside it."
)
_Peers = Annotated[
    bool, typer.Option("--peers", help="With --train: beside Brevitas and torchao, where they are installed.")
]
_Data = Annotated[
    Path | None, typer.Option("--data", help="Measure the training batches of this recipe instead.")
]


def bench(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run's folder; the newest run if left out. With --train or --data, values to set: seed=1.",
        ),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size; may be given again. 1 and 8 if left out.", min=1)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads on the CPU: of each engine, 1 if left out; with --train, of torch, which takes as "
            "many as there are cores if left out.",
            min=1,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for each batch size.", min=0.01)] = 10.0,
    backend: Annotated[_Backend, _BACKEND] = "auto",
    engine: Annotated[_Backend | None, _ENGINE] = None,
    baselines: Annotated[bool, _BASELINES] = True,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Measure this bundle alone, without its run.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="Measure the training steps of this recipe instead.")
    ] = None,
    peers: _Peers = False,
    data: _Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Measure latency in turns with other forms of the network on the same engine; --train: training steps;
    --data: their batches.

    Exit code 4 if the backend that --backend names cannot run here.
    """
    given = arguments or []
    if train is not None:
        _bench_training(train, given, threads, peers=peers, as_json=as_json)
        return
    if data is not None:
        _bench_data(data, given, as_json=as_json)
        return
    if len(given) > 1 or (given and bundle is not None):
        raise RecipeError(f"bench takes one run, or --bundle; got {' '.join(given)}")
    from saq_qat_runtime.bench.cpu import BenchSize

    size = BenchSize(batches=tuple(dict.fromkeys(batch or (1, 8))), threads=threads or 1, seconds=seconds)
    run = Path(given[0]) if given else None
    _bench_latency(run, bundle, size, engine or backend, baselines=baselines, as_json=as_json)


class _Steps:
    """Numbers the steps of a measurement, and adds how long those that measure still take.

    Args:
        before: steps that make ready; behind them each batch size is one, and another where a GPU takes part.
    """

    def __init__(self, before: int, size: "BenchSize") -> None:
        self._before, self._batches = before, len(size.batches)
        self._seconds = size.warmup_seconds + size.seconds
        self._number = 0

    def told(self, step: str) -> str:
        """The next step with its number, and the seconds of it and all behind it."""
        self._number += 1
        measuring = self._number - self._before
        rounds = max(1, -(-measuring // self._batches))
        total = self._before + rounds * self._batches
        left = (total - max(self._number - 1, self._before)) * self._seconds
        return f"{self._number}/{total} {step}, at least {left:.0f} s left"


def _bench_latency(
    run: Path | None,
    bundle: Path | None,
    size: "BenchSize",
    backend: "BackendChoice",
    *,
    baselines: bool,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from saq_qat.bench.run import bench_run
    from saq_qat_runtime.bench.record import write_bench
    from saq_qat_runtime.bench.run import bench_bundle
    from saq_qat_runtime.bundle.result_files import result_json
    from saq_qat_runtime.report.bench_text import bench_text

    folder = None if bundle is not None else resolve_run(run)
    with progress("bench") as shown:
        shown.say(f"bench {bundle or folder}")
        steps = _Steps(1 if folder is None else 2 + baselines, size)

        def on_step(step: str) -> None:
            shown.advance(0, note=steps.told(step))

        if folder is None:
            found, samples = bench_bundle(bundle or Path(), size, on_step, backend=backend)
        else:
            found, samples = bench_run(
                folder, folder / "export", size, backend=backend, baselines=baselines, on_step=on_step
            )
    written = None if folder is None else write_bench(found, samples, folder / "bench")
    if as_json:
        typer.echo(result_json(asdict(found), "bench"), nl=False)
        return
    typer.echo("\n".join(bench_text(found)))
    if written is not None:
        typer.echo(f"\nwrote {written}")


def _bench_training(
    recipe: Path, overrides: list[str], threads: int | None, *, peers: bool, as_json: bool
) -> None:
    import json
    from dataclasses import asdict

    import torch

    from saq_qat.recipe.load import load_recipe
    from saq_qat.report.cost_text import cost_goals, cost_text
    from saq_qat.train.cost import measure_training_cost
    from saq_qat_runtime.report.narrow import fitted

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_recipe(recipe, overrides)
    with progress(f"training steps of {recipe}") as shown:
        cost = measure_training_cost(
            loaded, peers=peers, on_round=lambda _done, total: shown.advance(total=total)
        )
    if as_json:
        compared = {"ratios": cost.ratios(), "goals": cost_goals(cost)}
        typer.echo(json.dumps({**asdict(cost), **compared}, indent=2))
        return
    typer.echo("\n".join(fitted(cost_text(cost))))


def _bench_data(recipe: Path, overrides: list[str], *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from saq_qat.data.cost import measure_data_cost
    from saq_qat.recipe.load import load_recipe
    from saq_qat.report.data_cost_text import data_cost_text
    from saq_qat_runtime.report.narrow import fitted

    loaded = load_recipe(recipe, overrides)
    with progress(f"training batches of {recipe}") as shown:
        cost = measure_data_cost(loaded, on_batch=lambda _done, total: shown.advance(total=total))
    if as_json:
        derived = {"epoch": cost.epoch, "images_per_second": cost.images_per_second}
        typer.echo(json.dumps({**asdict(cost), **derived}, indent=2))
        return
    typer.echo("\n".join(fitted(data_cost_text(cost))))
