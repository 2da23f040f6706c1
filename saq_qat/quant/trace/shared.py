"""Layers that are used more than once: every use has a path of its own, the layer and its weight stay one."""

from torch import fx, nn

from saq_qat.quant.trace.graph import module_of

__all__ = ["name_every_use", "owners"]


def name_every_use(network: fx.GraphModule) -> None:
    """Let the second call of a convolution or linear layer go to ``<path>_use_2``, the same module; in place.

    A quantizer, an integer bias and a folded BatchNorm belong to a use, and are found by its path.
    """
    calls: dict[str, int] = {}
    for node in network.graph.nodes:
        module = module_of(network, node)
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        path = str(node.target)
        calls[path] = calls.get(path, 0) + 1
        if calls[path] > 1:
            node.target = f"{path}_use_{calls[path]}"
            network.add_submodule(node.target, module)


def owners(network: nn.Module) -> dict[str, str]:
    """By the path of every module, the first path at which the same module is found."""
    first: dict[nn.Module, str] = {}
    return {
        path: first.setdefault(module, path) for path, module in network.named_modules(remove_duplicate=False)
    }
