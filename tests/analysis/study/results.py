"""Results of studies that nothing was trained for."""

from saq_qat.analysis.study.arms import Kind
from saq_qat.analysis.study.machines import Machine
from saq_qat.analysis.study.measure import SCHEMA_VERSION
from saq_qat.analysis.study.quantities import (
    Answers,
    Curvature,
    Measured,
    RunResult,
    Sharpness,
    StepCost,
    value_of,
)
from saq_qat.analysis.study.result import ArmResult, ComparisonResult, StudyResult
from saq_qat.analysis.study.statistics import paired_difference, spread_of

__all__ = ["KEYS", "measured", "study_result"]

KEYS = ("deployed_top1", "fake_quant_top1", "val_loss", "sharpness")


def measured(top1: float, digest: str = "0" * 64) -> Measured:
    return Measured(
        schema_version=SCHEMA_VERSION,
        created="2026-01-01T00:00:00+00:00",
        checkpoint_sha256=digest,
        bundle_sha256=None,
        checkpoint="last",
        settings={"rho": 0.4},
        form="deploy",
        step=10,
        fake_quant=Answers(top1 + 0.125, 1.0 - top1 / 100, 0.05, 1000),
        deployed=Answers(top1, 1.0 - top1 / 100, 0.05, 1000),
        integer_kernels=22,
        products=22,
        flips=3,
        train_loss=0.1,
        train_top1=99.0,
        train_images=500,
        sharpness=Sharpness(0.1, top1 / 1000, 0.4, 360.0, 500),
        curvature=Curvature(top1 / 10, 0.001, True, 200),
        step_cost=StepCost(2.0, 0.25),
        image_passes=12.0,
    )


def study_result(
    top1: dict[str, dict[int, float | None]],
    pairs: list[tuple[str, str, Kind]],
    name: str = "small",
    machine: Machine | None = None,
) -> StudyResult:
    """Of arms' top-1 by seed, None where it diverged."""
    runs = tuple(
        RunResult(
            arm, seed, f"runs/{arm}-seed{seed}/x", None, machine, None if value is None else measured(value)
        )
        for arm, seeds in top1.items()
        for seed, value in seeds.items()
    )

    def of(arm: str, key: str) -> dict[int, float]:
        found = {run.seed: value_of(run, key) for run in runs if run.arm == arm}
        return {seed: value for seed, value in found.items() if value is not None}

    arms = tuple(
        ArmResult(
            name=arm,
            recipe="recipe.yaml",
            overrides=("train.stages.0.lr=<0.1>",),
            seeds=tuple(seeds),
            diverged=tuple(seed for seed, value in seeds.items() if value is None),
            differs_in=(),
            image_passes=12.0,
            quantities={
                key: spread for key in KEYS if (spread := spread_of(list(of(arm, key).values()))) is not None
            },
        )
        for arm, seeds in top1.items()
    )
    comparisons = tuple(
        ComparisonResult(
            a,
            b,
            kind,
            {key: pair for key in KEYS if (pair := paired_difference(of(a, key), of(b, key))).seeds},
        )
        for a, b, kind in pairs
    )
    return StudyResult(
        3, "2026-01-01T00:00:00+00:00", "saq-qat 0", name, "as computed here", "last", arms, runs, comparisons
    )
