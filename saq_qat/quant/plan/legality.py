"""What the targets can run: rules over a plan, checked before any GPU hour is spent.

Each rule has an id, a level and a fix; each target has a module of rules and a row in ``targets.py``.
"""

from dataclasses import replace

from torch import fx

from saq_qat.quant.plan import rules_network
from saq_qat.quant.plan.plan import Finding, FloatReason, LayerPlan, Plan
from saq_qat.quant.plan.targets import TARGETS
from saq_qat.recipe.schema import Cpu

__all__ = ["judge"]


def judge(plan: Plan, network: fx.GraphModule, targets: tuple[str, ...], *, cpu: Cpu = "any") -> Plan:
    """The plan with, per layer, where and why it would stay float, and with every finding of the rules.

    Args:
        cpu: as ``deploy.onnxruntime.cpu`` of the recipe.
    """
    layers = tuple(replace(layer, float_on=_float_on(layer, targets)) for layer in plan.layers)
    judged = replace(plan, layers=layers, findings=())
    findings: list[Finding] = rules_network.findings(network) if targets else []
    for name, target in TARGETS.items():
        if name in targets:
            findings += target.findings(judged, network, cpu)
    return replace(judged, findings=tuple(findings))


def _float_on(layer: LayerPlan, targets: tuple[str, ...]) -> tuple[FloatReason, ...]:
    reasons = {target: TARGETS[target].float_reason(layer) for target in targets}
    return tuple(FloatReason(target, reason) for target, reason in reasons.items() if reason)
