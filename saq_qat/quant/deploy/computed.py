"""What a network computes from its parameters alone, whatever the image: normalised weights, positions.

Exporters fold such values into constants, which are no tensor of the checkpoint; so it keeps them beside its
tensors, as the trained network itself computes them.
"""

import copy

import torch
from torch import Tensor, fx

__all__ = ["computed_name", "computed_values"]


def computed_name(node: str) -> str:
    """The buffer of a deploy view that holds what ``node`` computes."""
    return f"{node}_computed"


class _Evaluated(fx.Interpreter):
    """Evaluates the nodes that read no image."""

    def __init__(self, network: fx.GraphModule, apart: set[fx.Node]) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.apart = apart

    def run_node(self, n: fx.Node) -> object:
        return super().run_node(n) if n in self.apart else None


@torch.no_grad()
def computed_values(network: fx.GraphModule) -> dict[str, Tensor]:
    """Tensors by node, in the network's floats: read by what reads the image too, no parameters.

    The network, its modes and its buffers are left as they are.
    """
    apart: set[fx.Node] = set()
    for node in network.graph.nodes:
        if node.op not in ("placeholder", "output") and apart.issuperset(node.all_input_nodes):
            apart.add(node)
    found = [node for node in apart if node.op != "get_attr" and not apart.issuperset(node.users)]
    if not found:
        return {}
    evaluated = _Evaluated(copy.deepcopy(network).eval(), set())
    names = {node.name for node in apart}
    evaluated.apart = {node for node in evaluated.graph.nodes if node.name in names}
    evaluated.run(None)
    values = {node.name: value for node, value in evaluated.env.items() if isinstance(value, Tensor)}
    return {
        node.name: values[node.name].detach().cpu().clone()
        for node in found
        if node.name in values and values[node.name].is_floating_point()
    }
