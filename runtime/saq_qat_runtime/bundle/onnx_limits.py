"""What a model may be before an engine sees it: plain operators, whose memory and time are bounded by what it
declares.

An engine asks for whatever memory a graph wants, and 136 bytes can want 16 GB; some of it when the model is
loaded, since an engine computes constants then. So a bundle's model has operators of a list alone, and the
sizes of all that it will compute, and how long that takes, follow from the shapes it declares: 300 bytes can
also want a day, which nothing interrupts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_call import BATCH, Call, Shape, TensorFacts, require_possible
from saq_qat_runtime.bundle.onnx_file import OnnxNode, ParsedGraph, parse_graph, summarize
from saq_qat_runtime.bundle.onnx_numbers import numbers_of
from saq_qat_runtime.bundle.onnx_operators import OPERATORS, checked_shape, element_width
from saq_qat_runtime.bundle.onnx_tensor import LARGEST_RANK
from saq_qat_runtime.bundle.onnx_work import elements
from saq_qat_runtime.errors import ModelError

__all__ = ["LARGEST_MEMORY", "LARGEST_WORK", "OLDEST_OPSET", "refuse_unsafe", "sizes_of"]

OLDEST_OPSET = 18
"""Before it, operators with the names of the list read other inputs and attributes."""

LARGEST_MEMORY = 1 << 30
"""Bytes that one image may take at once, and what is computed for all images together."""

LARGEST_WORK = 10**12
"""Operations, in multiply-adds, that one image may take, and what is computed for all images together: a
ViT-L at 384 pixels takes 2e11. A comparison or a copy counts as several (`onnx_work`)."""

_CONSTANTS = 1 << 27
_WIDENING = 48
"""Bytes that constants computed from the file may take, and from each byte of it: two codes of four bits, in
float32, and what is computed on the way there."""

_LONGEST_REASON = 400

_FIX = (
    "Export the bundle again; for a graph of your own, use the engine itself, or the backend with "
    "any_operators=True."
)


def refuse_unsafe(content: bytes, *, any_operators: bool = False) -> None:
    """Raise ModelError for a model that reads other files, brings operators of its own, has one that export
    never writes, or may take more memory or time than any bundle.

    any_operators: the graph is one's own, and neither its operators nor its memory and time are looked at.
    """
    summary = summarize(content)
    require(
        not summary.external_data,
        "The model keeps weights in other files; a bundle holds them inside. Export again.",
    )
    require(
        not summary.functions,
        f"The model defines functions of its own; a bundle holds plain operators. {_FIX}",
    )
    if not any_operators:
        _check_memory(parse_graph(content), _CONSTANTS + _WIDENING * len(content))


@dataclass
class _Sum:
    """Bytes of what is computed at once, or operations: for each image, and for all together."""

    per_image: int = 0
    together: int = 0

    def add(self, size: int) -> None:
        if size % BATCH == 0:
            self.per_image += size // BATCH
        else:
            self.together += size

    def take(self, size: int) -> None:
        self.add(-size)


@dataclass
class _Walk:
    """Facts of every tensor so far, the memory of those that are still read, and the operations."""

    graph: ParsedGraph
    allowed_constants: int
    facts: dict[str, TensorFacts] = field(default_factory=dict)
    memory: _Sum = field(default_factory=_Sum)
    work: _Sum = field(default_factory=_Sum)
    constants: int = 0


def sizes_of(graph: ParsedGraph) -> dict[str, TensorFacts]:
    """Facts of every tensor by name; raises ModelError as `refuse_unsafe` does."""
    return _check_memory(graph, LARGEST_MEMORY)


def _check_memory(graph: ParsedGraph, allowed_constants: int) -> dict[str, TensorFacts]:
    require(
        graph.opset >= OLDEST_OPSET and not graph.sparse,
        f"The model is of opset {graph.opset} or has sparse constants; bundles have opset {OLDEST_OPSET} or "
        "later. Export it again.",
    )
    walk = _Walk(graph, allowed_constants, dict(_given(graph)))
    for facts in walk.facts.values():
        if not facts.constant:
            walk.memory.add(_size(facts))
    last_read = _last_reads(graph)
    for place, node in enumerate(graph.nodes):
        try:
            _compute(walk, node)
        except ModelError as error:
            raise ModelError(f"The model's {_named(node)} is refused: {_brief(error)} {_FIX}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # An operator that is given too little, or of other shapes than it has: a Slice without an end.
            rule = f"its inputs or attributes are none that it can have ({_brief(error)})."
            raise ModelError(f"The model's {_named(node)} is refused: {rule} {_FIX}") from error
        for name in {*node.inputs, *node.outputs}:
            known = walk.facts.get(name)
            if known is not None and not known.constant and last_read.get(name, place) <= place:
                walk.memory.take(_size(known))
    _check_outputs(walk)
    return walk.facts


def _check_outputs(walk: _Walk) -> None:
    """Raise ModelError for an output that is declared larger than its nodes can make it, or otherwise."""
    for name, (_, declared) in walk.graph.outputs.items():
        made = walk.facts[name].shape if name in walk.facts else None
        if made is None or declared is None:
            continue
        told = [size if size % BATCH else "N" for size in made]
        rule, got = f"The model declares its output {name!r}", f"its nodes make {told}. {_FIX}"
        require(len(declared) == len(made), f"{rule} with {len(declared)} axes; {got}")
        fits = all(
            most % BATCH == 0 or size is None or 0 < size <= most
            for size, most in zip(declared, made, strict=True)
        )
        require(fits, f"{rule} as {['N' if size is None else size for size in declared]}; {got}")


def _brief(error: Exception) -> str:
    """An attribute of the file may be thousands of numbers, and stand in what is said of it."""
    told = str(error)
    return told if len(told) <= _LONGEST_REASON else f"{told[:_LONGEST_REASON]}..."


def _named(node: OnnxNode) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def _given(graph: ParsedGraph) -> Iterator[tuple[str, TensorFacts]]:
    for tensor in graph.initializers:
        try:
            shape, width = checked_shape(tensor), element_width(tensor.element_type)
        except ModelError as error:
            raise ModelError(f"The model is refused: {error} {_FIX}") from None
        yield tensor.name, TensorFacts(shape, width, tensor.numbers, constant=True)
    stored = {tensor.name for tensor in graph.initializers}
    for name, (element, sizes) in graph.inputs.items():
        if name not in stored:
            yield name, TensorFacts(_declared(name, sizes), element_width(element))


def _declared(name: str, sizes: tuple[int | None, ...] | None) -> Shape:
    fixed = sizes is not None and all(size is not None and size > 0 for size in sizes[1:])
    require(
        fixed, f"The model's input {name!r} has no fixed shape but for the batch. Export the bundle again."
    )
    rank = len(sizes or ())
    require(
        rank <= LARGEST_RANK,
        f"The model's input {name!r} has {rank:,} axes; {LARGEST_RANK} are allowed. Export the bundle again.",
    )
    first, *others = sizes or (1,)
    return (BATCH if first is None or first <= 0 else first, *(int(size or 0) for size in others))


def _last_reads(graph: ParsedGraph) -> dict[str, int]:
    """Place of the last node that reads a tensor; outputs of the graph are read behind all nodes."""
    found = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    return {**found, **dict.fromkeys(graph.outputs, len(graph.nodes))}


def _compute(walk: _Walk, node: OnnxNode) -> None:
    """Facts of what a node writes; raises ModelError for a node that no bundle has, or too much memory."""
    operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if operator is None:
        raise ModelError("no bundle has this operator.")
    others = sorted(node.attributes.keys() - operator.attributes)
    require(node.plain and not others, f"no bundle has its attributes {', '.join(others)}.")
    unknown = [name for name in node.inputs if name and name not in walk.facts]
    require(not unknown, f"nothing before it writes {', '.join(map(repr, unknown))}.")
    call = Call(
        tuple(walk.facts[name] if name else None for name in node.inputs), node.attributes, len(node.outputs)
    )
    found = operator.shape(call)
    results = found if isinstance(found, list) else [found] * len(node.outputs)
    constant = all(facts is None or facts.constant for facts in call.inputs)
    for shape in results:
        require_possible(shape)
    width = operator.width(call)
    numbers = numbers_of(node.op_type, call, width)
    beside = operator.beside(call)
    walk.memory.add(beside)
    walk.work.add(operator.work(call))
    walk.work.add(elements([*(facts.shape for facts in call.inputs if facts is not None), *results]))
    for place, (name, shape) in enumerate(zip(node.outputs, results, strict=False)):
        require(name not in walk.facts, f"{name!r} is written twice.")
        if name:
            walk.facts[name] = TensorFacts(shape, width, None if place else numbers, constant)
            _occupy(walk, walk.facts[name])
    _check(walk)
    walk.memory.take(beside)


def _occupy(walk: _Walk, facts: TensorFacts) -> None:
    if facts.constant:
        walk.constants += _size(facts)
    else:
        walk.memory.add(_size(facts))


def _size(facts: TensorFacts) -> int:
    return prod(facts.shape) * facts.width


def _check(walk: _Walk) -> None:
    found = {
        "bytes (every image)": (walk.memory.per_image, LARGEST_MEMORY),
        "bytes (whatever the batch)": (walk.memory.together, LARGEST_MEMORY),
        "bytes (constants computed from the file)": (walk.constants, walk.allowed_constants),
        "operations with all before it (every image)": (walk.work.per_image, LARGEST_WORK),
        "operations with all before it (whatever the batch)": (walk.work.together, LARGEST_WORK),
    }
    for what, (size, allowed) in found.items():
        require(size <= allowed, f"it takes {size:.3g} {what}; {allowed:.3g} are allowed.")
