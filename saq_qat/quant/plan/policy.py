"""The recipe's policy for each layer: kinds and bits after the edges' bits and the overrides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import fx

from saq_qat.errors import LegalityError
from saq_qat.quant.plan.edges import edges_of
from saq_qat.quant.trace.groups import Group
from saq_qat.quant.trace.shared import owners
from saq_qat.recipe.schema import Override, Quant

__all__ = ["LayerPolicy", "layer_policies"]


@dataclass(frozen=True)
class LayerPolicy:
    """Kind and bits of one layer's weight and input."""

    weight_kind: str
    weight_bits: int
    activation_kind: str
    activation_bits: int


def layer_policies(
    network: fx.GraphModule, quant: Quant, weighted: Sequence[Group]
) -> dict[str, LayerPolicy]:
    """Policy of each weighted layer by module path: defaults, bits of the edges, then the overrides in order.

    A layer that is used more than once has one policy, and is an edge if one of its uses is.

    Raises:
        LegalityError: there is no layer, or an override matches none.
    """
    names, first_use = [str(group.head.target) for group in weighted], owners(network)
    _check_layers([first_use[name] for name in names], quant)
    found = edges_of(network)
    edges = {first_use[name] for name, group in zip(names, weighted, strict=True) if group.head in found}
    return {name: _policy(first_use[name], quant, edge=first_use[name] in edges) for name in names}


def _policy(name: str, quant: Quant, *, edge: bool) -> LayerPolicy:
    policy = LayerPolicy(
        weight_kind=quant.weight.kind,
        weight_bits=quant.edge_bits if edge else quant.weight.bits,
        activation_kind=quant.activation.kind,
        activation_bits=quant.edge_bits if edge else quant.activation.bits,
    )
    for override in quant.overrides:
        if fnmatchcase(name, override.match):
            policy = _overridden(policy, override)
    return policy


def _overridden(policy: LayerPolicy, override: Override) -> LayerPolicy:
    return replace(
        policy,
        weight_kind=override.weight_kind or policy.weight_kind,
        weight_bits=override.weight_bits or policy.weight_bits,
        activation_kind=override.activation_kind or policy.activation_kind,
        activation_bits=override.activation_bits or policy.activation_bits,
    )


def _check_layers(names: Sequence[str], quant: Quant) -> None:
    if not names:
        raise LegalityError(
            "A network needs a convolution (Conv2d) or linear layer to quantize; this one has none. "
            "Leave the section quant out to train it in float."
        )
    for index, override in enumerate(quant.overrides):
        if not any(fnmatchcase(name, override.match) for name in names):
            raise LegalityError(
                f"quant.overrides.{index}.match: {override.match!r} matches no layer. "
                f"Layers: {', '.join(dict.fromkeys(names))}."
            )
