"""What a manifest says of probes: the file, and what a self-test with it covers."""

from dataclasses import dataclass

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.records import FileRecord

__all__ = ["CoverageRecord", "ProbesRecord"]


@dataclass(frozen=True)
class CoverageRecord:
    """Of which numbers the smallest change shows in the codes that a self-test compares.

    A change is one unit of a weight or a bias as it is stored, or one in 10,000 of a weight's scale, up or
    down. found: those that show.
    without_effect: those that are proved to show in no code, whatever the layer reads. uncounted: weights and
    biases of layers that no integer kernel computes, or whose sums are not read back.
    """

    changes: int
    found: int
    without_effect: int
    uncounted: int

    def __post_init__(self) -> None:
        counts = (self.changes, self.found, self.without_effect, self.uncounted)
        legal = min(counts) >= 0 and self.found + self.without_effect <= self.changes
        require(legal, f"a coverage needs counts that fit together, got {counts}.")

    @property
    def share(self) -> float:
        """Of the changes that can show, 0 to 1; 1 where none can."""
        possible = self.changes - self.without_effect
        return self.found / possible if possible else 1.0


@dataclass(frozen=True)
class ProbesRecord:
    """Codes that a self-test gives each layer, and those that it must compute; and what they cover."""

    file: FileRecord
    coverage: CoverageRecord
