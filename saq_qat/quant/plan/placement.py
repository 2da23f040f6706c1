"""Placement: from a traced network and the recipe's policy to a plan, so that what is trained can be
deployed.

Rules, for ``placement: deploy``; a *group* is what runs as one kernel (``groups``):

1. Every reader of a group's output states a requirement: a convolution or linear layer the bits of its input,
   a product of two tensors (attention) the bits of activations, an average the residual bits, a sum the same
   if a convolution hands it a term; anything else (it computes in float) nothing.
2. Where no reader has a requirement, nothing is quantized, but for convolutions inside the network: their
   integer kernels write codes, at the residual bits. Those of linear layers may write floats.
3. One requirement of all readers: one quantizer right after the group, shared by all.
4. Several requirements, or readers that compute in float beside those that require codes, or codes with an
   offset required: where a kernel writes codes, a quantizer of the residual bits after the group, shared by
   all, and one narrower quantizer per requirement behind it; a kernel feeds one quantizer. Elsewhere one
   quantizer per requirement.
5. Signed grids where a value can be negative, unsigned ones elsewhere. Codes with a learned offset, where the
   recipe asks for them, start at 0; if one of their readers pads with zeros, they are counted from the code
   of zero, for all readers alike.
6. Where ONNX Runtime is no target, a layer's kernel may write floats, and rule 2 quantizes nothing: of a
   sum's two terms the one that a convolution alone hands to it stays float, so that both run as one kernel.
   For OpenVINO alone, products of two tensors require nothing, and unsigned codes of 8 residual bits are
   0..255 where no layer reads them.
7. Weights behind 8-bit signed codes are at most -63..63, so that kernels of every CPU give the same codes;
   not where TensorRT is the only target, or ONNX Runtime on CPUs with VNNI.

``placement: paper`` quantizes convolution and linear inputs only, each requirement by a quantizer of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from torch import fx, nn

from saq_qat.quant.numerics.kinds.table import KINDS, weight_grid
from saq_qat.quant.plan.plan import LayerPlan, Plan, TensorPlan
from saq_qat.quant.plan.policy import layer_policies
from saq_qat.quant.plan.requirements import Requirement, Requirements, Sums
from saq_qat.quant.plan.targets import TARGETS
from saq_qat.quant.plan.uses import one_weight_one_grid
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import Group, groups
from saq_qat.recipe.schema import Cpu, Quant

__all__ = ["place"]


def _free(name: str) -> str:
    """A name that a folder of modules may hold: a tensor has methods that a module has too."""
    return f"{name}_value" if hasattr(nn.ModuleDict, name) else name


@dataclass(frozen=True)
class _Reader:
    """A reader with a requirement; ``carrier`` is the node it reads the group's value from."""

    node: fx.Node
    carrier: fx.Node
    requirement: Requirement


def place(network: fx.GraphModule, quant: Quant, targets: tuple[str, ...] = (), *, cpu: Cpu = "any") -> Plan:
    """The plan of a traced float network; with several targets, what satisfies all of them.

    Without any yet, as for ONNX Runtime, whose codes TensorRT takes too.

    Args:
        cpu: as ``deploy.onnxruntime.cpu`` of the recipe.

    Raises:
        LegalityError: an override matches nothing, or there is nothing to quantize.
    """
    known = [TARGETS[target] for target in targets or ("onnxruntime",)]
    wanted = {target.sums for target in known}
    placer = _Placer(
        network,
        quant,
        sums=next(sums for sums in get_args(Sums) if sums in wanted),
        products=any(target.products for target in known),
        full_bytes=all(target.full_bytes for target in known),
        bound_pairs=any(cpu in target.pairs_saturate for target in known),
    )
    tensors = tuple(placer.tensors())
    layers = one_weight_one_grid(network, list(placer.layers(tensors)))
    return Plan(tensors, tuple(layers), tuple(placer.products()))


class _Placer:
    """Applies the policy to one network; remembers which quantizer each reader ended up with."""

    def __init__(
        self,
        network: fx.GraphModule,
        quant: Quant,
        *,
        sums: Sums,
        products: bool,
        full_bytes: bool,
        bound_pairs: bool,
    ) -> None:
        self.network = network
        self.quant = quant
        self.groups = list(groups(network))
        weighted = [group for group in self.groups if graph.is_weighted(network, group.head)]
        self.policies = layer_policies(network, quant, weighted)
        self.weighted = {str(group.head.target): group for group in weighted}
        self.sources: dict[fx.Node, str] = {}
        self.codes_everywhere = sums == "codes"
        self.bound_pairs = bound_pairs
        self.requirements = Requirements(
            network, quant, self.policies, self.groups, sums=sums, products=products, full_bytes=full_bytes
        )

    def tensors(self) -> Iterator[TensorPlan]:
        for group in self.groups:
            is_image = group.head.op == "placeholder"
            if not graph.is_carrier(self.network, group.head) and (self.quant.quantize_image or not is_image):
                yield from self._place(group)

    def _place(self, group: Group) -> Iterator[TensorPlan]:
        name = "image" if group.head.op == "placeholder" else _free(group.output.name)
        readers, all_require = self._readers(group)
        common = self._common_requirement(group, readers, all_require=all_require)
        first: TensorPlan | None = None
        if common is not None:
            served = [reader for reader in readers if reader.requirement.codes == common.codes]
            first = self._tensor(name, group.output, common, served, shared=True)
            yield first
            readers = [reader for reader in readers if reader.requirement.codes != common.codes]
        yield from self._place_apart(name, readers, first)

    def _readers(self, group: Group) -> tuple[list[_Reader], bool]:
        """Readers of the group's value that have a requirement, and whether every reader has one."""
        uses = [
            (
                _Reader(node, carrier, requirement)
                if (requirement := self.requirements.of(node, group))
                else None
            )
            for node, carrier in graph.uses(self.network, group.output)
            if not graph.is_shape_query(node)
        ]
        readers = [reader for reader in uses if reader is not None]
        return readers, len(readers) == len(uses)

    def _common_requirement(
        self, group: Group, readers: list[_Reader], *, all_require: bool
    ) -> Requirement | None:
        """What one quantizer right after the group serves; None if each reader gets its own."""
        if self.quant.placement == "paper":
            return None
        requirements = {reader.requirement for reader in readers}
        writes_codes = self._writes_codes(group.head)
        kernel_needs_own = (
            writes_codes and self.codes_everywhere and any(requirement.offset for requirement in requirements)
        )
        if all_require and len(requirements) == 1 and not kernel_needs_own:
            return next(iter(requirements))
        several = bool(requirements) and (
            writes_codes or (all_require and not any(requirement.offset for requirement in requirements))
        )
        if several or (not requirements and self.codes_everywhere and self._is_inner_convolution(group)):
            return self.requirements.residual(group, "residual")
        return None

    def _writes_codes(self, head: fx.Node) -> bool:
        tests = (graph.is_convolution, graph.is_global_average)
        return self.requirements.is_convolved_sum(head) or any(test(self.network, head) for test in tests)

    def _is_inner_convolution(self, group: Group) -> bool:
        return graph.is_convolution(self.network, group.head) and any(
            reader.op != "output" for reader, _ in graph.uses(self.network, group.output)
        )

    def _place_apart(
        self, name: str, readers: list[_Reader], first: TensorPlan | None
    ) -> Iterator[TensorPlan]:
        """One quantizer per requirement and carrier, behind ``first`` where there is one."""
        places = list(dict.fromkeys((reader.carrier, reader.requirement) for reader in readers))
        for index, (carrier, requirement) in enumerate(places):
            served = [
                reader for reader in readers if (reader.carrier, reader.requirement) == (carrier, requirement)
            ]
            suffix = f"_{requirement.bits}bit" + (f"_{index}" if len(places) > 1 else "")
            own = name if first is None and len(places) == 1 else name + suffix
            yield self._tensor(own, carrier, requirement, served, first=first)

    def _tensor(
        self,
        name: str,
        after: fx.Node,
        requirement: Requirement,
        served: list[_Reader],
        *,
        first: TensorPlan | None = None,
        shared: bool = False,
    ) -> TensorPlan:
        self.sources.update({reader.node: name for reader in served})
        return TensorPlan(
            name=name,
            after=after.name,
            role=requirement.role,
            kind=requirement.kind,
            bits=requirement.bits,
            grid=requirement.grid,
            offset=requirement.offset,
            counts_from_zero=requirement.offset
            and any(self.requirements.pads(reader.node) for reader in served),
            initialise=self.quant.activation.initialise
            if requirement.role in ("input", "operand")
            else "mse",
            consumers=tuple(reader.node.name for reader in served),
            requantizes=None if first is None else first.name,
            shared=shared,
        )

    def products(self) -> Iterator[str]:
        """Products of two tensors that both got codes."""
        for node in self.network.graph.nodes:
            if graph.is_product(self.network, node) and node in self.sources:
                yield node.name

    def layers(self, tensors: tuple[TensorPlan, ...]) -> Iterator[LayerPlan]:
        first_after = {tensor.after: tensor.name for tensor in reversed(tensors)}
        largest = {tensor.name: tensor.grid.largest_stored for tensor in tensors if self.bound_pairs}
        for name, group in self.weighted.items():
            policy = self.policies[name]
            is_conv = isinstance(self.network.get_submodule(name), nn.Conv2d)
            wanted = self.quant.normalize_weights
            normalize = is_conv and (KINDS[policy.weight_kind].normalizes if wanted is None else wanted)
            source = self.sources.get(group.head)
            yield LayerPlan(
                name=name,
                op="conv" if is_conv else "linear",
                kind=policy.weight_kind,
                bits=policy.weight_bits,
                grid=weight_grid(
                    policy.weight_kind,
                    policy.weight_bits,
                    paper=self.quant.grid == "paper",
                    largest_input=None if source is None else largest.get(source),
                ),
                initialise=self.quant.weight.initialise,
                normalize=normalize,
                rescale_std=normalize and (self.quant.rescale_std or group.batch_norm is None),
                input=source,
                output=first_after.get(group.output.name),
            )
