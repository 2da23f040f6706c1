"""eval.json: the accuracy of a checkpoint, measured by ``saq-qat eval``."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from saq_qat.train.checkpoint import Form
from saq_qat.train.evaluate import Accuracy
from saq_qat.train.restore import Restored
from saq_qat_runtime.bundle.result_files import decode_result, read_result, write_result

__all__ = ["Evaluation", "evaluation_of", "read_evaluation", "write_evaluation"]

SCHEMA_VERSION = 1
_FIX = "Run 'saq-qat eval' again."


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


def evaluation_of(
    restored: Restored, checkpoint: str, network: Accuracy, deployed: Accuracy | None
) -> Evaluation:
    """What was found of a restored network just now."""
    return Evaluation(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint_sha256=restored.checkpoint_sha256,
        bundle_sha256=None,
        checkpoint=checkpoint,
        step=restored.step,
        form=restored.form,
        network=network,
        deployed=deployed,
    )


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
