"""Lowering: the training graph copied node by node, with integer modules where it fake-quantizes."""

import copy
from typing import Literal

import torch
from torch import Tensor, fx, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.computed import computed_name, computed_values
from saq_qat.quant.deploy.factors import fold_factors
from saq_qat.quant.deploy.fold import absorb_offset, batch_norm_affine, fold_layer, refinement
from saq_qat.quant.deploy.integer_modules import (
    ChannelAffine,
    IntegerConv2d,
    IntegerLayer,
    IntegerLinear,
    Quantize,
)
from saq_qat.quant.deploy.kernel_readers import absorbed_bound
from saq_qat.quant.deploy.ops import DEQUANTIZE, GLOBAL_AVERAGE_POOL
from saq_qat.quant.numerics.grid import exceeds_pair_bound
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import groups
from saq_qat.quant.trace.inputs import quantizer_before, quantizer_before_factor
from saq_qat.quant.trace.ranks import rank_of

__all__ = ["lower"]

_INT8_MAX = 127


def lower(network: fx.GraphModule, *, refine: bool) -> fx.GraphModule:
    """The deploy view of a quantized network, in evaluation mode.

    Raises:
        ArtifactError: an integer does not fit its type.
    """
    view = _Lowering(network, refine=refine).run()
    fold_factors(view)
    return view


class _Lowering:
    """Copies a graph; ``codes`` remembers which values are still integers, and of which quantizer."""

    def __init__(self, network: fx.GraphModule, *, refine: bool) -> None:
        self.network = network
        self.refine = refine
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.quantizers: dict[str, Quantize] = {}
        self.constants: dict[str, Tensor] = {}
        self.computed = computed_values(network)
        self.values: dict[fx.Node, fx.Node] = {}
        self.scaled: dict[fx.Node, fx.Node] = {}
        self.codes: dict[fx.Node, tuple[fx.Node, str]] = {}
        self.offsets: dict[str, fx.Node] = {}
        self.norms = {
            group.batch_norm: group.head
            for group in groups(network)
            if group.batch_norm is not None and isinstance(self._module(group.head), QuantLayer)
        }
        self.folded = {head: self._module(norm) for norm, head in self.norms.items()}

    def _module(self, node: fx.Node) -> nn.Module | None:
        return graph.module_of(self.network, node)

    def run(self) -> fx.GraphModule:
        for node in self.network.graph.nodes:
            self._lower(node)
        root = fx.GraphModule({}, fx.Graph())
        for path, module in (self.modules | self.quantizers).items():
            root.add_submodule(path, module)
        for name, constant in self.constants.items():
            root.register_buffer(name, constant)
        view = fx.GraphModule(root, self.graph, "DeployView").eval()
        view.graph.eliminate_dead_code()
        view.recompile()
        return view

    def _lower(self, node: fx.Node) -> None:
        module = self._module(node)
        if node.name in self.computed:
            name = computed_name(node.name)
            self.constants[name] = self.computed[node.name].float()
            self.values[node] = self.graph.get_attr(name)
        elif isinstance(module, Quantizer):
            self._quantize(node, module)
        elif isinstance(module, QuantLayer):
            self._layer(node, module)
        elif node in self.norms:
            self.values[node] = self._float(self.norms[node])
        elif graph.is_identity(self.network, node) or absorbed_bound(self.network, node) is not None:
            self._alias(node)
        elif graph.is_batch_norm(self.network, node) and module is not None:
            self._affine(node, module)
        elif graph.is_global_average(self.network, node):
            self._average(node)
        elif node.op == "get_attr":
            self._constant(node)
        elif not self._lower_codes(node):
            self.values[node] = self._copied(node, {})

    def _lower_codes(self, node: fx.Node) -> bool:
        """What works on integers as they are; False if it is something else or its input is a float."""
        source = next(iter(node.all_input_nodes), None)
        if source not in self.codes:
            return False
        codes, path = self.codes[source]
        if graph.is_reshape(self.network, node):
            self.codes[node] = (self._copied(node, {source: codes}), path)
        elif graph.is_shape_query(node):
            self.values[node] = self._copied(node, {source: codes})
        elif graph.is_max_pool(self.network, node):
            self._pool(node, self.quantizers[path])
        else:
            return False
        return True

    def _float(self, node: fx.Node) -> fx.Node:
        """The float value of a node; codes are dequantized where somebody reads them as floats."""
        if node not in self.values:
            offset = self.offsets.get(self.codes[node][1])
            scaled = self._scaled(node)
            self.values[node] = (
                scaled if offset is None else self.graph.call_function(torch.add, (scaled, offset))
            )
        return self.values[node]

    def _scaled(self, node: fx.Node) -> fx.Node:
        """The same without its offset, which layers hold in their biases."""
        if node not in self.codes:
            return self._float(node)
        if node not in self.scaled:
            codes, quantizer = self.codes[node]
            scale = self.graph.get_attr(f"{quantizer}.scale")
            zero_point = self.quantizers[quantizer].zero_point
            self.scaled[node] = self.graph.call_function(DEQUANTIZE, (codes, scale, zero_point))
        return self.scaled[node]

    def _quantize(self, node: fx.Node, quantizer: Quantizer) -> None:
        source = node.all_input_nodes[0]
        scale = quantizer.scale
        minimum, maximum = quantizer.code_range()
        bound = absorbed_bound(self.network, source)
        if bound is not None:
            # rounding is monotone, so clipping codes at round(bound / scale) equals clipping values at bound
            minimum = max(minimum, 0)
            maximum = min(maximum, int(torch.round(bound / scale).clamp_max(maximum)))
        path = str(node.target)
        stored, offset = self._storage(node, minimum, maximum), quantizer.offset()
        self.quantizers[path] = Quantize(
            scale,
            minimum=minimum,
            maximum=maximum,
            zero_point=0 if stored == "int8" else -min(minimum, 0),
            bits=quantizer.bits,
            stored=stored,
            offset=None if offset is None else float(offset.detach().float()),
        )
        value = self._float(source)
        if offset is not None:
            value = self._minus_offset(node, path, value, offset)
        flattens = value.target is torch.flatten and value.all_input_nodes[0].target is GLOBAL_AVERAGE_POOL
        codes = self.graph.call_module(path, (value.all_input_nodes[0] if flattens else value,))
        # An average feeds its quantizer directly, or it would be no integer kernel.
        self.codes[node] = (self.graph.call_function(torch.flatten, (codes, 1)) if flattens else codes, path)

    def _storage(self, node: fx.Node, minimum: int, maximum: int) -> Literal["uint8", "int8"]:
        """As int8 where it is the second factor of products: kernels multiply uint8 by int8 fastest.

        Not where such pairs of products may leave int16, which kernels of CPUs without VNNI saturate at:
        those of uint8 by uint8 are exact everywhere.
        """
        if maximum > _INT8_MAX or not graph.is_second_operand(self.network, node):
            return "uint8"
        first_factors = (
            quantizer_before_factor(self.network, reader, 0) for reader, _ in graph.uses(self.network, node)
        )
        largest = max((first.grid.largest_stored for first in first_factors if first is not None), default=0)
        return "uint8" if exceeds_pair_bound(largest, max(-minimum, maximum)) else "int8"

    def _minus_offset(self, node: fx.Node, path: str, value: fx.Node, offset: Tensor) -> fx.Node:
        name = f"{node.name}_offset"
        self.constants[name] = offset.detach().float().clone()
        self.offsets[path] = self.graph.get_attr(name)
        return self.graph.call_function(torch.sub, (value, self.offsets[path]))

    def _alias(self, node: fx.Node) -> None:
        source = node.all_input_nodes[0]
        if source in self.codes:
            self.codes[node] = self.codes[source]
        else:
            self.values[node] = self._float(source)

    def _layer(self, node: fx.Node, layer: QuantLayer) -> None:
        source = node.all_input_nodes[0]
        quantizer = quantizer_before(self.network, node)
        factor = refinement(layer, None if quantizer is None else quantizer.grid, refine=self.refine)
        try:
            folded = fold_layer(layer, self.folded.get(node), factor)
        except ArtifactError as error:
            raise ArtifactError(f"{node.target}: {error}") from error
        offset = None if quantizer is None else quantizer.offset()
        if offset is not None:
            folded = absorb_offset(folded, offset)
        input_scale = None if quantizer is None else quantizer.scale
        module: IntegerLayer
        if isinstance(layer, QuantConv2d):
            module = IntegerConv2d(layer, folded, input_scale, factor)
        else:
            module = IntegerLinear(folded, input_scale, layer.weight_quantizer, factor)
        self.modules[str(node.target)] = module
        self.values[node] = self.graph.call_module(str(node.target), (self._scaled(source),))

    def _affine(self, node: fx.Node, norm: nn.Module) -> None:
        rank = rank_of(self.network, node)
        axes = None if rank is None else rank - 2
        self.modules[str(node.target)] = ChannelAffine(*batch_norm_affine(norm), axes)
        self.values[node] = self.graph.call_module(str(node.target), (self._float(node.all_input_nodes[0]),))

    def _pool(self, node: fx.Node, before: Quantize) -> None:
        """Pooled floats lie on the grid already; quantizing them again says so, without a clip."""
        path = f"quantizers.{node.name}"
        self.quantizers[path] = Quantize(
            before.scale,
            minimum=before.minimum,
            maximum=before.maximum,
            zero_point=before.zero_point,
            bits=before.bits,
            on_grid=True,
            stored=before.stored,
            offset=before.offset,
        )
        source = node.all_input_nodes[0]
        pooled = self._copied(node, {source: self._scaled(source)})
        offset = self.offsets.get(self.codes[source][1])
        if offset is not None:
            self.offsets[path] = offset
        self.codes[node] = (self.graph.call_module(path, (pooled,)), path)

    def _average(self, node: fx.Node) -> None:
        source = self._float(node.all_input_nodes[0])
        pooled = self.graph.call_function(GLOBAL_AVERAGE_POOL, (source,))
        is_mean = node.target in (torch.mean, "mean")
        keeps = not is_mean or node.kwargs.get("keepdim", len(node.args) > 2 and node.args[2])
        self.values[node] = pooled if keeps else self.graph.call_function(torch.flatten, (pooled, 1))

    def _constant(self, node: fx.Node) -> None:
        """A parameter or buffer that the model itself computes with; a layer's quantizer is none."""
        path, _, name = str(node.target).rpartition(".")
        tensor = getattr(self.network.get_submodule(path), name)
        if isinstance(tensor, Quantizer):
            return
        self.constants[node.name] = tensor.detach().clone()
        self.values[node] = self.graph.get_attr(node.name)

    def _copied(self, node: fx.Node, known: dict[fx.Node, fx.Node]) -> fx.Node:
        if node.op == "call_module":
            self.modules[str(node.target)] = copy.deepcopy(self.network.get_submodule(str(node.target)))
        return self.graph.node_copy(node, lambda n: known[n] if n in known else self._float(n))
