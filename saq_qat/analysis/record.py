"""analysis.json: what is known of the curvature at one checkpoint."""

from dataclasses import asdict, dataclass
from pathlib import Path

from saq_qat.train.checkpoint import Form
from saq_qat_runtime.bundle.result_files import decode_result, read_result, write_result

__all__ = ["ANALYSIS_FILE", "Analysis", "Conditions", "Hutchinson", "Lanczos", "earlier", "write_analysis"]

ANALYSIS_FILE = Path("analysis", "analysis.json")
"""Below a run's folder."""

SCHEMA_VERSION = 1
_FIX = "Move it out of the run's folder and run 'saq-qat analyze' again."


@dataclass(frozen=True)
class Conditions:
    """What a number depends on beside the checkpoint.

    Attributes:
        images: training images, never augmented. loss: their mean cross entropy at the network.
        weights: how many the Hessian is of.
        seed: of first vectors and probes.
    """

    images: int
    loss: float
    weights: int
    precision: str
    seed: int


@dataclass(frozen=True)
class Lanczos:
    """How the eigenvalues were found; as ``Spectrum``."""

    conditions: Conditions
    tolerance: float
    converged: bool
    products: int


@dataclass(frozen=True)
class Hutchinson:
    """How the trace was estimated."""

    conditions: Conditions
    probes: int


@dataclass(frozen=True)
class Analysis:
    """Curvature of the loss at a checkpoint, with respect to its quantized weights.

    Attributes:
        created: UTC, ISO 8601.
        checkpoint_sha256: of the model.safetensors that was analysed.
        bundle_sha256: None, for no bundle takes part.
        checkpoint: the name it then had. step: optimizer steps it was trained for.
        eigenvalues: the largest ones of the Hessian, largest first (lambda_max); None if not measured.
        residuals: ||H v - lambda v|| of each: an eigenvalue of H lies within that distance.
        trace: its estimate; trace_standard_error: of that.
    """

    schema_version: int
    created: str
    checkpoint_sha256: str
    bundle_sha256: str | None
    checkpoint: str
    step: int
    form: Form
    eigenvalues: tuple[float, ...] | None = None
    residuals: tuple[float, ...] | None = None
    lanczos: Lanczos | None = None
    trace: float | None = None
    trace_standard_error: float | None = None
    hutchinson: Hutchinson | None = None


def write_analysis(analysis: Analysis, run: Path) -> Path:
    """Write it into the run's folder, whole or not at all; gives the file.

    Raises:
        ResultError: a number is not finite, or the file cannot be written.
    """
    path = run / ANALYSIS_FILE
    write_result(path, asdict(analysis))
    return path


def earlier(run: Path, checkpoint_sha256: str) -> Analysis | None:
    """What an earlier analysis of this very checkpoint found, to which more is added.

    None if there is none, or if it is about another checkpoint: it is then written anew.

    Raises:
        ModelError: it is damaged; VersionError: this version cannot read it. It may hold hours of work, so it
            is not replaced.
    """
    path = run / ANALYSIS_FILE
    if not path.is_file():
        return None
    found = decode_result(Analysis, read_result(path, SCHEMA_VERSION, _FIX), path, _FIX)
    return found if found.checkpoint_sha256 == checkpoint_sha256 else None
