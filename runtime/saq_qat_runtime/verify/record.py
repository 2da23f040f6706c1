"""What a verification on the machine at hand found, as plain records."""

from dataclasses import dataclass

from saq_qat_runtime.bench.environment import Environment
from saq_qat_runtime.bench.record import Bench
from saq_qat_runtime.bundle.deploy import ThresholdsRecord
from saq_qat_runtime.codes import CodeComparison
from saq_qat_runtime.errors import DepartureError
from saq_qat_runtime.kernels import IntegerCount

__all__ = ["SCHEMA_VERSION", "Answers", "EngineVerification", "Flip"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Flip:
    """An image that the engine answers otherwise than the fake-quant network; indices of labels."""

    image: str
    label: int
    fake_quant: int
    engine: int


@dataclass(frozen=True)
class Answers:
    """Top-1 (percent) of the fake-quant network, as it was recorded, and of the engine; and where they part.

    flips: images that they answer differently; listed: the first of them.
    """

    images: int
    fake_quant_top1: float
    engine_top1: float
    flips: int
    listed: tuple[Flip, ...]

    @property
    def flip_rate(self) -> float:
        """Share of the images, 0 to 1, that are answered differently."""
        return self.flips / self.images

    @property
    def top1_drop(self) -> float:
        """Percentage points that the engine loses; below zero where it gains."""
        return self.fake_quant_top1 - self.engine_top1


@dataclass(frozen=True)
class EngineVerification:
    """One engine of one bundle on one machine.

    created: UTC, ISO 8601. bundle_sha256: of the manifest. file: what the engine loaded, and its SHA-256.
    skipped: engines that were passed over, each with the reason. threads: None on a GPU, or where the engine
    chose. golden_difference: largest absolute difference of the golden logits; golden_tolerance: what is
    allowed. codes: None where they cannot be read back, which codes_absent explains. thresholds: those of the
    recipe. failures: what exceeds them, in words; empty if nothing does. bench: latency of the same engine;
    None if it was not measured.
    """

    schema_version: int
    created: str
    name: str
    checkpoint_sha256: str
    bundle_sha256: str
    gate_passed: bool
    backend: str
    version: str
    target: str
    file: str
    file_sha256: str
    threads: int | None
    skipped: tuple[str, ...]
    integer: IntegerCount
    golden_difference: float
    golden_tolerance: float
    codes: CodeComparison | None
    codes_absent: str
    answers: Answers
    thresholds: ThresholdsRecord
    failures: tuple[str, ...]
    environment: Environment
    bench: Bench | None = None

    @property
    def passed(self) -> bool:
        """Whether the engine departs no further than the thresholds allow."""
        return not self.failures

    def require_passed(self) -> None:
        """Raise DepartureError with everything that exceeds a threshold."""
        if self.failures:
            raise DepartureError(
                f"{self.file} on {self.backend} {self.version} departs from what was trained: "
                f"{'; '.join(self.failures)}. Use the engine version of the manifest, or export again."
            )
