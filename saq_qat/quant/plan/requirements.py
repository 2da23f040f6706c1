"""What each reader of a tensor asks of it: the bits and the grid of the codes it wants to read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.table import activation_grid
from saq_qat.quant.plan.plan import Role
from saq_qat.quant.plan.policy import LayerPolicy
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import Group
from saq_qat.recipe.schema import Quant

__all__ = ["Requirement", "Requirements", "Sums"]

Sums = Literal["codes", "shortcut"]
"""What residual sums and global averages add, as a target's kernels want it (``targets.py``)."""


@dataclass(frozen=True)
class Requirement:
    """What a reader asks of the tensor it reads."""

    kind: str
    bits: int
    grid: Grid
    role: Role
    offset: bool = False

    @property
    def codes(self) -> tuple[Grid, bool]:
        """What readers must agree on to share a quantizer."""
        return self.grid, self.offset


class Requirements:
    """The requirements of one network's readers, under one policy.

    Args:
        found: every group of the network.
        sums: ``shortcut`` where a convolution and the sum it hands a term to run as one kernel, which leaves
            that term without codes.
        products: whether kernels multiply codes of two activations.
        full_bytes: whether 8-bit unsigned codes that no layer reads are 0..255.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        quant: Quant,
        policies: Mapping[str, LayerPolicy],
        found: Sequence[Group],
        *,
        sums: Sums,
        products: bool,
        full_bytes: bool,
    ) -> None:
        self.network = network
        self.quant = quant
        self.policies = policies
        self.products = products
        self.full_bytes = full_bytes
        self.by_output = {group.output: group for group in found}
        self.float_sums = quant.placement == "paper"
        self.fused_terms = frozenset(self._fused_terms()) if sums == "shortcut" else frozenset()

    def of(self, reader: fx.Node, group: Group) -> Requirement | None:
        """What ``reader`` asks of the value of ``group``; None if it computes in float."""
        if graph.is_weighted(self.network, reader):
            return self._input(str(reader.target), group)
        if graph.is_product(self.network, reader):
            return self._operand(group) if self.products else None
        if self.float_sums:
            return None
        if self.is_convolved_sum(reader):
            return None if group in self.fused_terms else self.residual(group, "residual")
        if graph.is_global_average(self.network, reader):
            return self.residual(group, "pooled")
        return None

    def residual(self, group: Group, role: Literal["residual", "pooled"]) -> Requirement:
        """Codes of the residual bits, which sums and averages read and kernels write."""
        bits = self.quant.residual_bits
        full = self.full_bytes and not self._is_input(group, bits)
        grid = activation_grid("saq", bits, signed=self._is_signed(group), paper=full)
        return Requirement("saq", bits, grid, role)

    def _is_input(self, group: Group, bits: int) -> bool:
        """Whether a layer reads the value with as many bits: then one quantizer serves it too."""
        layers = (str(node.target) for node, _ in graph.uses(self.network, group.output) if node.target)
        return any(name in self.policies and self.policies[name].activation_bits == bits for name in layers)

    def is_convolved_sum(self, node: fx.Node) -> bool:
        """Whether a convolution hands a sum one of its terms: then the kernels of both work on codes."""
        if not graph.is_add(self.network, node):
            return False
        sources = (graph.value_of(self.network, term) for term in node.all_input_nodes)
        terms = (self.by_output.get(source) for source in sources)
        return any(term is not None and graph.is_convolution(self.network, term.head) for term in terms)

    def _fused_terms(self) -> Iterator[Group]:
        """For each sum, the first of its terms that is a convolution's and has no other reader."""
        for node in self.network.graph.nodes:
            if graph.is_add(self.network, node):
                terms = (self.by_output.get(term) for term in node.all_input_nodes if len(term.users) == 1)
                yield from [term for term in terms if term is not None and self._is_bare(term)][:1]

    def _is_bare(self, group: Group) -> bool:
        return group.activation is None and graph.is_convolution(self.network, group.head)

    def _is_signed(self, group: Group) -> bool:
        return not graph.is_nonnegative(self.network, group.output)

    def _input(self, layer: str, group: Group) -> Requirement:
        """The bits of the layer's input; an image gets the whole of int8, whatever the kind of the others."""
        policy = self.policies[layer]
        if group.head.op == "placeholder":
            grid = activation_grid("symmetric", policy.activation_bits, signed=True)
            return Requirement("symmetric", policy.activation_bits, grid, "image")
        kind, bits, offset = policy.activation_kind, policy.activation_bits, self._has_offset(group)
        signed = self._is_signed(group) and not offset
        grid = activation_grid(kind, bits, signed=signed, paper=self.quant.grid == "paper")
        return Requirement(kind, bits, grid, "input", offset)

    def pads(self, reader: fx.Node) -> bool:
        """Whether a reader is a convolution that surrounds its input with zeros."""
        module = graph.module_of(self.network, reader)
        return isinstance(module, nn.Conv2d) and module.padding not in (0, (0, 0), "valid")

    def _has_offset(self, group: Group) -> bool:
        if self.quant.activation.offset == "signed":
            return self._is_signed(group)
        return self.quant.activation.offset == "bounded" and graph.is_bounded_below(
            self.network, group.output
        )

    def _operand(self, group: Group) -> Requirement:
        """Of a product's factor: no offset, which would add sums of the other factor's codes."""
        kind, bits = self.quant.activation.kind, self.quant.activation.bits
        return Requirement(kind, bits, activation_grid(kind, bits, signed=self._is_signed(group)), "operand")
