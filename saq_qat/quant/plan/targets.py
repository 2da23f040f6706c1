"""The table of targets: where each needs quantizers, and what its rules say of a plan."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from saq_qat.quant.plan import rules_onnxruntime, rules_tensorrt
from saq_qat.quant.plan.plan import Finding, LayerPlan, Plan
from saq_qat.recipe.schema import Cpu

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """What planning must know of one target.

    Attributes:
        kernels_write_codes: integer kernels write codes, so that each convolution's output and both terms of
            a residual sum get quantizers; elsewhere a layer may write floats, and a sum runs with the
            convolution.
        pairs_saturate: some of its CPUs add pairs of products in saturating int16 (the pair bound).
        float_reason: why it would run a layer in float; empty if on integers.
        findings: what its rules say of a plan.
    """

    kernels_write_codes: bool
    pairs_saturate: bool
    float_reason: Callable[[LayerPlan], str]
    findings: Callable[[Plan, fx.GraphModule, Cpu], list[Finding]]


TARGETS: dict[str, Target] = {
    "onnxruntime": Target(
        kernels_write_codes=True,
        pairs_saturate=True,
        float_reason=rules_onnxruntime.float_reason,
        findings=rules_onnxruntime.findings,
    ),
    "tensorrt": Target(
        kernels_write_codes=False,
        pairs_saturate=False,
        float_reason=rules_tensorrt.float_reason,
        findings=rules_tensorrt.findings,
    ),
}
