"""What a page shows beyond the text report: measured now from checkpoint and bundle, or read."""

from collections.abc import Mapping
from dataclasses import dataclass

from saq_qat.errors import ArtifactError, SaqError
from saq_qat.report.collect import Collected
from saq_qat.report.grids import Grids, golden_inputs, measure_grids, network_of
from saq_qat.report.predictions import Predictions, read_predictions
from saq_qat.report.samples import read_samples
from saq_qat.report.thumbnails import Flips, flips_of
from saq_qat.train.checkpoint import newest_checkpoint
from saq_qat_runtime.errors import ModelError

__all__ = ["Details", "details_of"]

Samples = Mapping[int, Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Details:
    """Of the run a page is about.

    Attributes:
        classes: names of the labels.
        grids: of the checkpoint's weights, and of the activations of the bundle's golden samples.
        predictions: of single images, by saq-qat eval. samples: single latencies, by saq-qat bench.
        flips: predictions that deployment changed.
        missing: what is not there, by the name of its field: why, and which command makes it.
        recipe: as it was resolved, YAML.
    """

    classes: tuple[str, ...]
    grids: Grids | None
    predictions: Predictions | None
    samples: Samples | None
    flips: Flips | None
    missing: Mapping[str, str]
    recipe: str


def details_of(known: Collected, thumbnails: int) -> Details:
    """Measure grids, and read predictions and latencies of this very checkpoint and bundle.

    Args:
        thumbnails: pictures of images whose prediction flipped, at most.

    Raises:
        ArtifactError: a file is damaged; it is named with the command that makes it again.
    """
    missing: dict[str, str] = {}
    classes = _classes(known)
    grids = _grids(known, len(classes), missing)
    predictions = _predictions(known, missing)
    samples = _samples(known, missing)
    flips = flips_of(known, predictions, classes, thumbnails)
    if flips is None:
        missing["flips"] = f"Not compared yet: saq-qat verify {known.run}"
    recipe = (known.run / "resolved.yaml").read_text(encoding="utf-8")
    return Details(classes, grids, predictions, samples, flips, missing, recipe)


def _classes(known: Collected) -> tuple[str, ...]:
    if known.manifest is not None:
        return known.manifest.labels
    if known.evaluation is not None:
        return tuple(each.name for each in known.evaluation.classes)
    if known.checkpoint is None:
        return ()
    checkpoint = newest_checkpoint(known.run / "checkpoints" / known.checkpoint.name)
    return () if checkpoint is None or checkpoint.data is None else checkpoint.data.classes


def _grids(known: Collected, classes: int, missing: dict[str, str]) -> Grids | None:
    if known.checkpoint is None or known.checkpoint.form == "float":
        missing["grids"] = "There is no quantized checkpoint, so nothing lies on a grid: saq-qat train"
        return None
    checkpoint = newest_checkpoint(known.run / "checkpoints" / known.checkpoint.name)
    if checkpoint is None or checkpoint.sha256 != known.checkpoint.sha256 or not classes:
        missing["grids"] = "The checkpoint changed while it was read, or does not name its classes"
        return None
    images = None
    if known.manifest is not None:
        images = golden_inputs(known.run / "export", known.manifest.golden.file.name)
    else:
        missing["activations"] = f"Activations need the bundle's golden samples: saq-qat export {known.run}"
    try:
        return measure_grids(network_of(known.recipe, checkpoint, classes), images)
    except SaqError as error:  # the network's own code may be elsewhere, or newer than the run
        missing["grids"] = f"The network cannot be built here: {error}"
        return None


def _predictions(known: Collected, missing: dict[str, str]) -> Predictions | None:
    if known.evaluation is None:
        missing["predictions"] = f"Predictions of single images were not recorded: saq-qat eval {known.run}"
        return None
    return read_predictions(known.run / "report" / "predictions.csv", known.evaluation.predictions_sha256)


def _samples(known: Collected, missing: dict[str, str]) -> Samples | None:
    path = known.run / "bench" / "samples.json"
    if known.bench is None or not path.is_file():
        missing["samples"] = f"Latency was not measured: saq-qat bench {known.run}"
        return None
    try:
        samples = read_samples(path, known.bench)
    except ModelError as error:
        raise ArtifactError(str(error)) from error
    if samples is None:
        missing["samples"] = (
            f"samples.json is of another measurement than bench.json: saq-qat bench {known.run}"
        )
    return samples
