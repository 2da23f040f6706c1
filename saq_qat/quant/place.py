"""Placement: from a traced network and the recipe's policy to a plan (DESIGN: training graph = deployed graph).

A *group* is a convolution, linear layer, sum or average with the BatchNorm and ReLU that follow it alone; its last node is
the tensor that may be quantized. Rules, for ``placement: deploy``:

1. Every reader of a tensor states a need: a convolution or linear layer the bits of its input, a sum or an average the
   residual bits, anything else nothing. A convolution's output needs at least the residual bits, since integer kernels
   write codes.
2. One need: one quantizer, right after the group, shared by all readers.
3. Several needs: a residual quantizer after the group, and one narrower quantizer per need behind it, so that the group
   still feeds exactly one.
4. Signed grids where a value can be negative, unsigned ones elsewhere.

``placement: paper`` quantizes convolution and linear inputs only, each need by a quantizer of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import fx, nn

from saq_qat.errors import LegalityError
from saq_qat.quant import graph
from saq_qat.quant.grid import Grid, activation_grid, weight_grid
from saq_qat.quant.plan import LayerPlan, Plan, Role, TensorPlan
from saq_qat.recipe.schema import Quant

__all__ = ["groups", "place"]


@dataclass(frozen=True)
class Group:
    """A node with what is fused into it: ``tail`` is the BatchNorm and the ReLU that read nothing else."""

    head: fx.Node
    batch_norm: fx.Node | None
    activation: fx.Node | None

    @property
    def output(self) -> fx.Node:
        return self.activation or self.batch_norm or self.head


@dataclass(frozen=True)
class Need:
    kind: str
    bits: int
    grid: Grid
    role: Role


@dataclass(frozen=True)
class LayerPolicy:
    weight_kind: str
    weight_bits: int
    activation_kind: str
    activation_bits: int


def groups(network: fx.GraphModule) -> Iterator[Group]:
    """Every group in graph order: one per node that is not fused into an earlier one."""
    fused: set[fx.Node] = set()
    for node in network.graph.nodes:
        if node in fused or node.op == "output":
            continue
        norm = _only_reader(node) if graph.is_weighted(network, node) else None
        if norm is not None and not graph.is_batch_norm(network, norm):
            norm = None
        last = norm or node
        activation = None if graph.is_carrier(network, node) else _only_reader(last)
        if activation is not None and graph.activation_bound(network, activation) is None:
            activation = None
        fused |= {part for part in (norm, activation) if part is not None}
        yield Group(node, norm, activation)


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def place(network: fx.GraphModule, quant: Quant) -> Plan:
    """The plan of a traced float network.

    Raises:
        LegalityError: a layer is called twice, an override matches nothing, or there is nothing to quantize.
    """
    placer = _Placer(network, quant)
    tensors = tuple(placer.tensors())
    return Plan(tensors, tuple(placer.layers(tensors)))


class _Placer:
    """Applies the policy to one network; remembers which quantizer each reader ended up with."""

    def __init__(self, network: fx.GraphModule, quant: Quant) -> None:
        self.network = network
        self.quant = quant
        self.groups = list(groups(network))
        self.weighted = {
            str(group.head.target): group for group in self.groups if graph.is_weighted(network, group.head)
        }
        self.policies = _policies(network, quant, self.groups)
        self.sources: dict[fx.Node, str] = {}

    def tensors(self) -> Iterator[TensorPlan]:
        for group in self.groups:
            is_image = group.head.op == "placeholder"
            if graph.is_carrier(self.network, group.head) or (is_image and not self.quant.quantize_image):
                continue
            readers = [
                (reader, carrier, need)
                for reader, carrier in graph.uses(self.network, group.output)
                if (need := self._need(reader, group)) is not None
            ]
            yield from self._place_group(group, readers)

    def _place_group(
        self, group: Group, readers: list[tuple[fx.Node, fx.Node, Need]]
    ) -> Iterator[TensorPlan]:
        needs = list(dict.fromkeys(need for _, _, need in readers))
        name = "image" if group.head.op == "placeholder" else group.output.name
        first: TensorPlan | None = None
        if self.quant.placement == "deploy":
            shared = self._shared_need(group, needs)
            if shared is None:
                return
            served = tuple(reader.name for reader, _, need in readers if need.grid == shared.grid)
            first = self._tensor(name, group.output, shared, served, shared=True)
            self._remember(readers, shared, name)
            yield first
            readers = [entry for entry in readers if entry[2].grid != shared.grid]
        yield from self._place_rest(name, readers, first)

    def _place_rest(
        self, name: str, readers: list[tuple[fx.Node, fx.Node, Need]], first: TensorPlan | None
    ) -> Iterator[TensorPlan]:
        places = list(dict.fromkeys((carrier, need) for _, carrier, need in readers))
        for index, (carrier, need) in enumerate(places):
            served = tuple(r.name for r, c, n in readers if (c, n) == (carrier, need))
            suffix = f"_{need.bits}bit" + (f"_{index}" if len(places) > 1 else "")
            own = name if first is None and len(places) == 1 else name + suffix
            self._remember([entry for entry in readers if entry[1:] == (carrier, need)], need, own)
            yield self._tensor(own, carrier, need, served, first=first)

    def _shared_need(self, group: Group, needs: list[Need]) -> Need | None:
        if len(needs) == 1:
            return needs[0]
        writes_codes = graph.is_weighted(self.network, group.head) and any(
            reader.op != "output" for reader, _ in graph.uses(self.network, group.output)
        )
        if not needs and not writes_codes:
            return None
        return self._residual_need(group, "residual")

    def _remember(self, readers: list[tuple[fx.Node, fx.Node, Need]], need: Need, name: str) -> None:
        self.sources.update({reader: name for reader, _, own in readers if own.grid == need.grid})

    def _tensor(
        self,
        name: str,
        after: fx.Node,
        need: Need,
        served: tuple[str, ...],
        *,
        first: TensorPlan | None = None,
        shared: bool = False,
    ) -> TensorPlan:
        return TensorPlan(
            name=name,
            after=after.name,
            role=need.role,
            kind=need.kind,
            bits=need.bits,
            grid=need.grid,
            initialise=self.quant.activation.initialise if need.role == "input" else "mse",
            consumers=served,
            requantizes=None if first is None else first.name,
            shared=shared,
        )

    def _need(self, reader: fx.Node, group: Group) -> Need | None:
        if graph.is_weighted(self.network, reader):
            policy = self.policies[str(reader.target)]
            is_image = group.head.op == "placeholder"
            signed = not graph.is_nonnegative(self.network, group.output)
            kind = "symmetric" if is_image else policy.activation_kind
            grid = activation_grid(
                kind, policy.activation_bits, signed=signed, paper=self.quant.grid == "paper" and not is_image
            )
            return Need(kind, policy.activation_bits, grid, "image" if is_image else "input")
        if self.quant.placement == "paper":
            return None
        if graph.is_add(self.network, reader):
            return self._residual_need(group, "residual")
        if graph.is_global_average(self.network, reader):
            return self._residual_need(group, "pooled")
        return None

    def _residual_need(self, group: Group, role: Literal["residual", "pooled"]) -> Need:
        bits = self.quant.residual_bits
        signed = not graph.is_nonnegative(self.network, group.output)
        return Need("saq", bits, activation_grid("saq", bits, signed=signed), role)

    def layers(self, tensors: tuple[TensorPlan, ...]) -> Iterator[LayerPlan]:
        first_after = {tensor.after: tensor.name for tensor in reversed(tensors)}
        for name, group in self.weighted.items():
            policy = self.policies[name]
            is_conv = isinstance(self.network.get_submodule(name), nn.Conv2d)
            normalize = self.quant.normalize_weights and is_conv
            yield LayerPlan(
                name=name,
                op="conv" if is_conv else "linear",
                kind=policy.weight_kind,
                bits=policy.weight_bits,
                grid=weight_grid(policy.weight_kind, policy.weight_bits, paper=self.quant.grid == "paper"),
                initialise=self.quant.weight.initialise,
                normalize=normalize,
                rescale_std=normalize and (self.quant.rescale_std or group.batch_norm is None),
                input=self.sources.get(group.head),
                output=first_after.get(group.output.name),
            )


def _policies(network: fx.GraphModule, quant: Quant, found: list[Group]) -> dict[str, LayerPolicy]:
    """Kind and bits of each weighted layer: the defaults, the edges' bits, then the overrides in order."""
    weighted = [group for group in found if graph.is_weighted(network, group.head)]
    names = [str(group.head.target) for group in weighted]
    _check_layers(names, quant)
    policies = {}
    for name, group in zip(names, weighted, strict=True):
        edge = _reads_image(network, group.head) or _writes_output(network, group.output)
        policy = {
            "weight_kind": quant.weight.kind,
            "weight_bits": quant.edge_bits if edge else quant.weight.bits,
            "activation_kind": quant.activation.kind,
            "activation_bits": quant.edge_bits if edge else quant.activation.bits,
        }
        for override in quant.overrides:
            if fnmatchcase(name, override.match):
                policy |= {k: v for k, v in override.model_dump(exclude={"match"}).items() if v is not None}
        policies[name] = LayerPolicy(**policy)
    return policies


def _check_layers(names: list[str], quant: Quant) -> None:
    if not names:
        raise LegalityError("A network needs a convolution or linear layer to quantize; this one has none.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LegalityError(
            f"A quantized layer has one input quantizer, so it may be called once; called more often: {', '.join(twice)}. "
            "Give each call its own module."
        )
    for index, override in enumerate(quant.overrides):
        if not any(fnmatchcase(name, override.match) for name in names):
            raise LegalityError(
                f"quant.overrides.{index}.match: {override.match!r} matches no layer. Layers: {', '.join(names)}."
            )


def _reads_image(network: fx.GraphModule, node: fx.Node) -> bool:
    parent = node.all_input_nodes[0]
    while graph.is_carrier(network, parent):
        parent = parent.all_input_nodes[0]
    return parent.op == "placeholder"


def _writes_output(network: fx.GraphModule, node: fx.Node) -> bool:
    return any(reader.op == "output" for reader, _ in graph.uses(network, node))
