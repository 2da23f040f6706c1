"""From the training graph to the deploy stage and the deploy view: the same network with its integers in place."""

import copy

import torch
from torch import fx, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant import graph
from saq_qat.quant.fold import batch_norm_affine, fold_layer, refinement
from saq_qat.quant.functional import scale_of
from saq_qat.quant.integer_modules import ChannelAffine, IntegerConv2d, IntegerLayer, IntegerLinear, Quantize
from saq_qat.quant.layers import QuantConv2d, QuantLayer
from saq_qat.quant.ops import DEQUANTIZE, GLOBAL_AVERAGE_POOL
from saq_qat.quant.place import groups
from saq_qat.quant.quantizer import Quantizer
from saq_qat.recipe.schema import Deploy

__all__ = ["deploy_view", "fold_batch_norm"]


def _quantizer_before(network: fx.GraphModule, node: fx.Node) -> Quantizer | None:
    """The quantizer whose codes a node reads, through carriers; None for a float input."""
    parent = node.all_input_nodes[0]
    while graph.is_carrier(network, parent):
        parent = parent.all_input_nodes[0]
    module = graph.module_of(network, parent)
    return module if isinstance(module, Quantizer) else None


def fold_batch_norm(network: fx.GraphModule, *, refine_bias: bool = True) -> fx.GraphModule:
    """Training graph of the deploy stage, in place: BatchNorm frozen and folded, biases rounded straight-through.

    Every integer layer gains a learned bias on the grid that deployment gives it; weights, clip levels and biases go on
    learning, the BatchNorms are gone.
    """
    for group in groups(network):
        layer = graph.module_of(network, group.head)
        if not isinstance(layer, QuantLayer) or layer.folded:
            continue
        norm = None if group.batch_norm is None else graph.module_of(network, group.batch_norm)
        _fold_into(layer, norm, refine_bias=refine_bias)
        if group.batch_norm is not None:
            group.batch_norm.replace_all_uses_with(group.head)
            network.graph.erase_node(group.batch_norm)
            network.delete_submodule(str(group.batch_norm.target))
        quantizer = _quantizer_before(network, group.head)
        if quantizer is not None:
            _pass_input_scale(network, group.head, quantizer)
    network.graph.lint()
    network.recompile()
    return network


@torch.no_grad()
def _fold_into(layer: QuantLayer, norm: nn.Module | None, *, refine_bias: bool) -> None:
    out = layer.weight.shape[0]
    gain, shift = layer.weight.new_ones(out), layer.weight.new_zeros(out)
    if norm is not None:
        gain, shift = batch_norm_affine(norm)
    bias = shift if layer.bias is None else layer.bias.double() * gain + shift
    layer.fold(gain, bias, refinement(layer, refine=refine_bias))


def _pass_input_scale(network: fx.GraphModule, node: fx.Node, quantizer: Quantizer) -> None:
    path = next(name for name, module in network.named_modules() if module is quantizer)
    with network.graph.inserting_before(node):
        alpha = network.graph.get_attr(f"{path}.alpha")
        scale = network.graph.call_function(scale_of, (alpha, quantizer.grid.unit))
    node.args = (*node.args, scale)


def deploy_view(network: fx.GraphModule, deploy: Deploy) -> fx.GraphModule:
    """A float32 module in evaluation mode that computes with the integers export will write.

    Works from the training graph as well as from the deploy stage. ``.double()`` turns it into the float64 reference.

    Raises:
        ArtifactError: a quantizer was never initialised, has an offset, or an integer does not fit its type.
    """
    for name, module in network.named_modules():
        if isinstance(module, Quantizer) and not bool(module.initialised):
            raise ArtifactError(
                f"Quantizer {name!r} was never initialised, so its scale means nothing. Calibrate or train the network first."
            )
    return _Lowering(network, deploy).run()


class _Lowering:
    """Copies a graph node by node; ``codes`` remembers which values are still integers, and of which quantizer."""

    def __init__(self, network: fx.GraphModule, deploy: Deploy) -> None:
        self.network = network
        self.refine = deploy.refine_bias
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.values: dict[fx.Node, fx.Node] = {}
        self.codes: dict[fx.Node, tuple[fx.Node, str]] = {}
        self.norms = {g.batch_norm: g.head for g in groups(network) if isinstance(self._module(g.head), QuantLayer)}
        self.folded = {head: self._module(norm) for norm, head in self.norms.items() if norm is not None}

    def _module(self, node: fx.Node) -> nn.Module | None:
        return graph.module_of(self.network, node)

    def run(self) -> fx.GraphModule:
        for node in self.network.graph.nodes:
            self._lower(node)
        root = fx.GraphModule({}, fx.Graph())
        for path, module in self.modules.items():
            root.add_submodule(path, module)
        view = fx.GraphModule(root, self.graph, "DeployView").eval()
        view.graph.eliminate_dead_code()
        view.recompile()
        return view

    def _lower(self, node: fx.Node) -> None:
        module = self._module(node)
        if isinstance(module, Quantizer):
            self._quantize(node, module)
        elif isinstance(module, QuantLayer):
            self._layer(node, module)
        elif node in self.norms:
            self.values[node] = self._float(self.norms[node])
        elif graph.is_identity(self.network, node) or self._absorbed(node) is not None:
            self._alias(node)
        elif graph.is_batch_norm(self.network, node) and module is not None:
            self._affine(node, module)
        elif graph.is_reshape(self.network, node) and node.all_input_nodes[0] in self.codes:
            self._reshape(node)
        elif graph.is_max_pool(self.network, node) and node.all_input_nodes[0] in self.codes:
            self._pool(node)
        elif graph.is_global_average(self.network, node):
            self._average(node)
        elif node.op != "get_attr" and node.target is not scale_of:
            self._copy(node)

    def _float(self, node: fx.Node) -> fx.Node:
        """The float value of a node; codes are dequantized where somebody reads them as floats."""
        if node not in self.values:
            codes, quantizer = self.codes[node]
            module = self.modules[quantizer]
            assert isinstance(module, Quantize)
            scale = self.graph.get_attr(f"{quantizer}.scale")
            self.values[node] = self.graph.call_function(DEQUANTIZE, (codes, scale, module.zero_point))
        return self.values[node]

    def _quantize(self, node: fx.Node, quantizer: Quantizer) -> None:
        source = node.all_input_nodes[0]
        if quantizer.beta is not None:
            raise ArtifactError(f"{node.target}: codes with a learned offset cannot be deployed yet; train with kind saq or lsq.")
        scale, grid = quantizer.scale, quantizer.grid
        minimum, maximum = grid.minimum, grid.maximum
        bound = self._absorbed(source)
        if bound is not None:
            # rounding is monotone, so clipping codes at round(bound / scale) equals clipping values at bound
            minimum = max(minimum, 0)
            maximum = min(maximum, int(torch.round(bound / scale).clamp_max(maximum)))
        path = str(node.target)
        self.modules[path] = Quantize(
            scale, minimum=minimum, maximum=maximum, zero_point=-min(minimum, 0), bits=quantizer.bits
        )
        self.codes[node] = (self.graph.call_module(path, (self._float(source),)), path)

    def _absorbed(self, node: fx.Node) -> float | None:
        """Upper bound of a ReLU whose only reader is a quantizer, and which therefore lives on as bounds of codes."""
        bound = graph.activation_bound(self.network, node)
        if bound is None or len(node.users) != 1:
            return None
        return bound if isinstance(self._module(next(iter(node.users))), Quantizer) else None

    def _alias(self, node: fx.Node) -> None:
        source = node.all_input_nodes[0]
        if source in self.codes:
            self.codes[node] = self.codes[source]
        else:
            self.values[node] = self._float(source)

    def _layer(self, node: fx.Node, layer: QuantLayer) -> None:
        source = node.all_input_nodes[0]
        quantizer = _quantizer_before(self.network, node)
        factor = refinement(layer, refine=self.refine)
        folded = fold_layer(layer, self.folded.get(node), refine=self.refine)
        input_scale = None if quantizer is None else quantizer.scale
        module: IntegerLayer
        if isinstance(layer, QuantConv2d):
            module = IntegerConv2d(layer, folded, input_scale, factor)
        else:
            module = IntegerLinear(folded, input_scale, layer.weight_quantizer, factor)
        self.modules[str(node.target)] = module
        self.values[node] = self.graph.call_module(str(node.target), (self._float(source),))

    def _affine(self, node: fx.Node, norm: nn.Module) -> None:
        self.modules[str(node.target)] = ChannelAffine(*batch_norm_affine(norm))
        self.values[node] = self.graph.call_module(str(node.target), (self._float(node.all_input_nodes[0]),))

    def _reshape(self, node: fx.Node) -> None:
        codes, path = self.codes[node.all_input_nodes[0]]
        copied = self._copied(node, {node.all_input_nodes[0]: codes})
        self.codes[node] = (copied, path)

    def _pool(self, node: fx.Node) -> None:
        """Pooled floats lie on the grid already; quantizing them again states so in the graph, and needs no clip."""
        path = self.codes[node.all_input_nodes[0]][1]
        before = self.modules[path]
        assert isinstance(before, Quantize)
        pooled = self._copied(node, {})
        path = f"quantizers.{node.name}"
        self.modules[path] = Quantize(
            before.scale,
            minimum=-before.zero_point,
            maximum=255 - before.zero_point,
            zero_point=before.zero_point,
            bits=before.bits,
        )
        self.codes[node] = (self.graph.call_module(path, (pooled,)), path)

    def _average(self, node: fx.Node) -> None:
        source = self._float(node.all_input_nodes[0])
        pooled = self.graph.call_function(GLOBAL_AVERAGE_POOL, (source,))
        is_mean = node.target in (torch.mean, "mean")
        keeps = not is_mean or node.kwargs.get("keepdim", len(node.args) > 2 and node.args[2])
        self.values[node] = pooled if keeps else self.graph.call_function(torch.flatten, (pooled, 1))

    def _copy(self, node: fx.Node) -> None:
        self.values[node] = self._copied(node, {})

    def _copied(self, node: fx.Node, known: dict[fx.Node, fx.Node]) -> fx.Node:
        if node.op == "call_module":
            self.modules[str(node.target)] = copy.deepcopy(self.network.get_submodule(str(node.target)))
        return self.graph.node_copy(node, lambda n: known[n] if n in known else self._float(n))
