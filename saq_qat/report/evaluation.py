"""eval.json and predictions.csv: what a checkpoint answers, measured by ``saq-qat eval``."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saq_qat.data.names import image_names
from saq_qat.report.per_class import ClassAccuracy, Confusion, accuracy_of_classes, largest_confusions
from saq_qat.report.predictions import Predictions, write_predictions
from saq_qat.train.checkpoint import Form
from saq_qat.train.distributed import Processes
from saq_qat.train.evaluate import Accuracy, deployed_form, evaluate_on
from saq_qat.train.restore import Restored
from saq_qat_runtime.bundle.result_files import decode_result, read_result, write_result

__all__ = [
    "EVALUATION_FILE",
    "PREDICTIONS_FILE",
    "Evaluation",
    "evaluate_checkpoint",
    "images_to_classify",
    "read_evaluation",
    "write_evaluation",
]

EVALUATION_FILE, PREDICTIONS_FILE = "eval.json", "predictions.csv"
SCHEMA_VERSION = 2
_CONFUSIONS = 20
_FIX = "Run 'saq-qat eval' again."

OnImages = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on all validation images.

    Attributes:
        created: UTC, ISO 8601.
        checkpoint_sha256: of the model.safetensors that was evaluated.
        bundle_sha256: None, for no bundle takes part.
        checkpoint: the name it then had. step: optimizer steps it was trained for.
        network: of the network as it trains, in its form.
        deployed: of its deploy view; None if it has none.
        classes: accuracy of each class, in the order of the labels.
        confusions: the pairs of classes most often taken for each other, at most twenty.
        predictions_sha256: of predictions.csv beside this file.
    """

    schema_version: int
    created: str
    checkpoint_sha256: str
    bundle_sha256: str | None
    checkpoint: str
    step: int
    form: Form
    network: Accuracy
    deployed: Accuracy | None
    classes: tuple[ClassAccuracy, ...]
    confusions: tuple[Confusion, ...]
    predictions_sha256: str


def evaluate_checkpoint(
    restored: Restored, checkpoint: str, device: torch.device, folder: Path, on_images: OnImages
) -> Evaluation:
    """Evaluate a restored network and its deploy view, and write predictions.csv and eval.json.

    Args:
        checkpoint: its name. folder: for both files; it is made.
        on_images: told how many images were classified more, of ``images_to_classify`` in all.

    Raises:
        DataError: an image cannot be read. ResultError: a number is not finite, or a file cannot be written.
    """
    network = restored.network.to(device)
    view = deployed_form(network, restored.plan, restored.recipe)
    accuracy, answers = _answers(network, restored, device, on_images)
    deployed, deployed_answers = (None, None) if view is None else _answers(view, restored, device, on_images)
    images = restored.images
    predictions = Predictions(
        image_names(restored.recipe.data, images.val), images.val.labels, answers, deployed_answers
    )
    evaluation = Evaluation(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint_sha256=restored.checkpoint_sha256,
        bundle_sha256=None,
        checkpoint=checkpoint,
        step=restored.step,
        form=restored.form,
        network=accuracy,
        deployed=deployed,
        classes=accuracy_of_classes(predictions, images.classes),
        confusions=largest_confusions(predictions, images.classes, _CONFUSIONS),
        predictions_sha256=write_predictions(predictions, folder / PREDICTIONS_FILE),
    )
    write_evaluation(evaluation, folder / EVALUATION_FILE)
    return evaluation


def images_to_classify(restored: Restored) -> int:
    """Images that ``evaluate_checkpoint`` classifies, those of the deploy view counted again."""
    has_view = restored.plan is not None and restored.plan.deployable
    return len(restored.images.val) * (2 if has_view else 1)


def _answers(
    network: nn.Module, restored: Restored, device: torch.device, on_images: OnImages
) -> tuple[Accuracy, NDArray[np.int64]]:
    """Accuracy of a network on the validation images, and its answer to each, int64 [images]."""
    answers: list[Tensor] = []

    def take(logits: Tensor) -> None:
        answers.append(logits.argmax(dim=1))
        on_images(len(logits))

    accuracy = evaluate_on(network, restored.recipe, restored.images, Processes(0, 1, device), take)
    return accuracy, torch.cat(answers).numpy()


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write ``path``.

    Raises:
        ResultError: a number is not finite, or the file cannot be written.
    """
    write_result(path, asdict(evaluation))


def read_evaluation(path: Path) -> Evaluation:
    """Read ``path``.

    Raises:
        VersionError: it is of another version. ModelError: it is damaged.
    """
    return decode_result(Evaluation, read_result(path, SCHEMA_VERSION, _FIX), path, _FIX)
