"""What is known of one trained run, and the table of quantities that studies show."""

from collections.abc import Callable
from dataclasses import dataclass

from saq_qat.analysis.study.machines import Machine

__all__ = [
    "QUANTITIES",
    "Answers",
    "Curvature",
    "Measured",
    "Quantity",
    "RunResult",
    "Sharpness",
    "StepCost",
    "value_of",
]


@dataclass(frozen=True)
class Answers:
    """How one form of a network answers the validation images.

    Attributes:
        top1: percent. loss: mean cross entropy.
        calibration_error: expected calibration error, from 0 to 1 (Guo et al., 2017).
        images: how many there were.
    """

    top1: float
    loss: float
    calibration_error: float
    images: int


@dataclass(frozen=True)
class Sharpness:
    """How much the loss rises in the ball of SAQ, through the slots, in evaluation mode.

    Attributes:
        loss: at the quantized weights. increase: at Q(w) + epsilon minus ``loss`` (paper Eq. 6 to 9, Case 3).
        rho: length of epsilon. weight_norm: ||Q(w)|| over all quantized weights, to hold rho against.
        images: training images, without augmentation.
    """

    loss: float
    increase: float
    rho: float
    weight_norm: float
    images: int


@dataclass(frozen=True)
class Curvature:
    """The largest eigenvalue of the Hessian with respect to the quantized weights, as ``analyze`` finds it.

    Attributes:
        residual: ||H v - lambda_max v||: an eigenvalue lies within that distance. Both are None if none was
            found.
        converged: whether the residual is within the tolerance; only then is it compared.
        images: training images, without augmentation.
    """

    lambda_max: float | None
    residual: float | None
    converged: bool
    images: int


@dataclass(frozen=True)
class StepCost:
    """What a training step of the last stage but deploy costs.

    Attributes:
        passes: forward and backward passes, on average.
        seconds: median over epochs of an epoch's mean, with all that goes on beside it on that machine; None
            where the log has none.
    """

    passes: float
    seconds: float | None


@dataclass(frozen=True)
class Measured:
    """One trained network, measured.

    Attributes:
        created: UTC, ISO 8601.
        checkpoint_sha256: of the model.safetensors that was measured. checkpoint: its name.
        bundle_sha256: None, for no bundle takes part.
        settings: what was asked for, as the study says it.
        form: of that network. step: optimizer steps it was trained for.
        fake_quant: the network as it trains (in full precision, the network itself).
        deployed: the integers, by ONNX Runtime's kernels; None for a network that is not deployed.
        integer_kernels, products: how many products run on integer kernels, of how many; None likewise.
        flips: validation images that the integers classify otherwise than the fake-quant network.
        train_loss, train_top1: in evaluation mode on ``train_images`` training images without augmentation.
        sharpness: None in full precision. curvature: None in full precision, or where it was not asked for.
        image_passes: how often all stages together pass each training image through the network.
    """

    schema_version: int
    created: str
    checkpoint_sha256: str
    bundle_sha256: str | None
    checkpoint: str
    settings: dict[str, str | int | float | None]
    form: str
    step: int
    fake_quant: Answers
    deployed: Answers | None
    integer_kernels: int | None
    products: int | None
    flips: int | None
    train_loss: float
    train_top1: float
    train_images: int
    sharpness: Sharpness | None
    curvature: Curvature | None
    step_cost: StepCost
    image_passes: float


@dataclass(frozen=True)
class RunResult:
    """One run of a study.

    Attributes:
        run: its folder, relative to the study's; None if it diverged before it had one.
        images: SHA-256 of the labels and file names, or pixels in memory, of those it was trained and judged
            on; None if the run does not say.
        machine: where it was trained; None likewise.
        measured: None where training diverged.
    """

    arm: str
    seed: int
    run: str | None
    images: str | None
    machine: Machine | None
    measured: Measured | None


@dataclass(frozen=True)
class Quantity:
    """A number of a run that tables and pictures show.

    Attributes:
        key: in study.json. label, unit: for people; an empty unit is a pure number.
        digits: behind the point.
        of: None where a network has no such number.
    """

    key: str
    label: str
    unit: str
    digits: int
    of: Callable[[Measured], float | None]


def _flip_rate(measured: Measured) -> float | None:
    """Validation images that the integers classify otherwise, in percent."""
    return None if measured.flips is None else 100.0 * measured.flips / measured.fake_quant.images


def _lambda_max(measured: Measured) -> float | None:
    curvature = measured.curvature
    return None if curvature is None or not curvature.converged else curvature.lambda_max


QUANTITIES = (
    Quantity(
        "deployed_top1", "deployed top-1", "%", 2, lambda m: None if m.deployed is None else m.deployed.top1
    ),
    Quantity("fake_quant_top1", "fake-quant top-1", "%", 2, lambda m: m.fake_quant.top1),
    Quantity("val_loss", "validation loss", "", 4, lambda m: m.fake_quant.loss),
    Quantity("train_loss", "train loss", "", 4, lambda m: m.train_loss),
    Quantity("calibration_error", "calibration error", "", 4, lambda m: m.fake_quant.calibration_error),
    Quantity("flip_rate", "flips", "%", 2, _flip_rate),
    Quantity(
        "sharpness", "sharpness", "", 4, lambda m: None if m.sharpness is None else m.sharpness.increase
    ),
    Quantity("lambda_max", "lambda max", "", 3, _lambda_max),
    Quantity("step_seconds", "step", "s", 4, lambda m: m.step_cost.seconds),
    Quantity("passes", "passes a step", "", 2, lambda m: m.step_cost.passes),
    Quantity("image_passes", "passes over images", "", 1, lambda m: m.image_passes),
)
"""One row a quantity, in the order of the tables."""


def value_of(result: RunResult, key: str) -> float | None:
    """A quantity of a run by its key; None where it has none, or diverged."""
    if result.measured is None:
        return None
    return next(quantity for quantity in QUANTITIES if quantity.key == key).of(result.measured)
