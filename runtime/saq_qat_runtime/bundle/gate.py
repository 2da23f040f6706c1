"""The verdict of the proof as a manifest states it; one that contradicts itself raises ModelError."""

from dataclasses import dataclass

from saq_qat_runtime.bundle.decode import require

__all__ = ["CONSTANT_COMPARISON", "ComparisonRecord", "Gate"]

CONSTANT_COMPARISON = "channels that keep their weights in integers"
_ANSWERS = "top-1 of "


@dataclass(frozen=True)
class ComparisonRecord:
    """One comparison of the proof: how many values were compared, and how many differ.

    A hard one passes if nothing differs; but answers of an engine and channels that became constants may, as
    far as the recipe allows.
    """

    name: str
    hard: bool
    passed: bool
    compared: int
    mismatches: int
    detail: str

    def __post_init__(self) -> None:
        counts = f"got {self.mismatches} mismatches of {self.compared}"
        legal = self.compared >= 0 and self.mismatches >= 0
        require(legal, f"counts of comparison {self.name!r} must not be negative, {counts}.")
        if not self.passed:
            return
        fits = self.mismatches <= self.compared
        require(fits, f"comparison {self.name!r} cannot pass with more mismatches than values, {counts}.")
        if self.hard and not self.may_differ:
            holds = self.compared > 0 and self.mismatches == 0
            require(holds, f"hard comparison {self.name!r} cannot pass with nothing or a mismatch, {counts}.")

    @property
    def compares_answers(self) -> bool:
        """Whether it counts answers to images, of which the recipe's thresholds let some differ."""
        return self.name.startswith(_ANSWERS)

    @property
    def may_differ(self) -> bool:
        """Whether it may pass with mismatches, or where there was nothing to compare."""
        return self.compares_answers or self.name == CONSTANT_COMPARISON


@dataclass(frozen=True)
class Gate:
    """Result of the proof. A bundle whose gate failed exists only if that was allowed on purpose."""

    passed: bool
    allowed_failed: bool
    comparisons: tuple[ComparisonRecord, ...]

    def __post_init__(self) -> None:
        hard = [comparison for comparison in self.comparisons if comparison.hard]
        failed = [comparison.name for comparison in hard if not comparison.passed]
        require(not (self.passed and failed), f"a gate cannot pass with failed hard comparisons {failed}.")
        proved = any(comparison.compared > 0 and not comparison.may_differ for comparison in hard)
        rule = "a gate cannot pass without a hard comparison in which nothing may differ."
        require(proved or not self.passed, rule)
        both = self.passed and self.allowed_failed
        require(not both, "a gate that passed cannot be one that was allowed to fail.")

    def check_flips(self, allowed: float) -> None:
        """Raise ModelError if answers passed of which more than the share `allowed` (0 to 1) differ."""
        for comparison in self.comparisons:
            flips, images = comparison.mismatches, comparison.compared
            over = comparison.passed and comparison.compares_answers and flips > allowed * images * (1 + 1e-9)
            rule = f"comparison {comparison.name!r} cannot pass with {flips} of {images} answers changed"
            require(not over, f"{rule}: max_flip_rate is {allowed:g}.")
