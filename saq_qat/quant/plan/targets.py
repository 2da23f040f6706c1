"""The table of targets: where each needs quantizers, and what its rules say of a plan."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from saq_qat.quant.plan import rules_onnxruntime, rules_openvino, rules_tensorrt
from saq_qat.quant.plan.plan import Finding, LayerPlan, Plan
from saq_qat.quant.plan.requirements import Sums
from saq_qat.recipe.schema import Cpu

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """What planning must know of one target.

    Attributes:
        sums: what residual sums and global averages add. ``codes``: its integer kernels write codes, so that
            each convolution's output and both terms of a sum get quantizers; ``shortcut``: a sum runs with a
            convolution, whose term has no codes.
        products: its kernels multiply codes of two activations (attention).
        full_bytes: it stores 8-bit unsigned codes as uint8 and saturates at 255 for nothing, while a bound of
            127 is a step of its own.
        pairs_saturate: for which ``deploy.onnxruntime.cpu`` of the recipe some of its CPUs add pairs of
            products in saturating int16 (the pair bound).
        float_reason: why it would run a layer in float; empty if on integers.
        findings: what its rules say of a plan.
    """

    sums: Sums
    products: bool
    full_bytes: bool
    pairs_saturate: frozenset[Cpu]
    float_reason: Callable[[LayerPlan], str]
    findings: Callable[[Plan, fx.GraphModule, Cpu], list[Finding]]


TARGETS: dict[str, Target] = {
    "onnxruntime": Target(
        sums="codes",
        products=True,
        full_bytes=False,
        pairs_saturate=frozenset({"any"}),
        float_reason=rules_onnxruntime.float_reason,
        findings=rules_onnxruntime.findings,
    ),
    "tensorrt": Target(
        sums="shortcut",
        products=True,
        full_bytes=False,
        pairs_saturate=frozenset(),
        float_reason=rules_tensorrt.float_reason,
        findings=rules_tensorrt.findings,
    ),
    "openvino": Target(
        sums="shortcut",
        products=False,
        full_bytes=True,
        pairs_saturate=frozenset({"any", "vnni"}),
        float_reason=rules_openvino.float_reason,
        findings=rules_openvino.findings,
    ),
}
