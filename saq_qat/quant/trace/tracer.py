"""Tracing with torch.fx in both modes: what is one node, and what makes a network untraceable."""

import copy
import inspect
import keyword
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from saq_qat.errors import LegalityError, SaqError
from saq_qat.quant.trace.adaptive import write_out_adaptive_maxima
from saq_qat.quant.trace.alike import compute_alike_once
from saq_qat.quant.trace.constants import fold_constants
from saq_qat.quant.trace.decompose import decompose_products
from saq_qat.quant.trace.duplicates import merge_duplicates
from saq_qat.quant.trace.in_place import check_in_place
from saq_qat.quant.trace.modes import depends_on_mode, functions_told_the_mode
from saq_qat.quant.trace.patches import write_out_patches
from saq_qat.quant.trace.resizing import write_out_resizing
from saq_qat.quant.trace.respelled import respell
from saq_qat.quant.trace.rewrite import FOLLOW_MODE, ModeArguments, as_layers
from saq_qat.quant.trace.shared import name_every_use
from saq_qat.quant.trace.simplify import pad_maxima_by_zeros
from saq_qat.quant.trace.sizes import ImageShape, ShapeFollower, SizedProxy, known, sizes_of_the_graph

__all__ = ["ImageTracer", "trace"]

_CONSTANT = "_tensor_constant"
_NOT_THEIRS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent), "<")
_TRACED_THROUGH = "torchvision.models."
_CUTS = ("chunk", "split", "split_with_sizes")


class ImageTracer(fx.Tracer):
    """Records what a batch of images passes through; whatever else ``forward`` takes keeps its default.

    Recorded whole are, beside the layers of torch.nn, subclasses of LayerNorm, and every module without
    children whose ``forward`` reads ``training``, such as stochastic depth: traced through, it would stay for
    ever in the mode it was traced in. So is every call of a function of ``told`` that gives back the very
    tensor it is given, if told that it is evaluation.

    Attributes:
        failed_in: path of the innermost module whose forward raised; empty for the network's own.
        told: functions with a parameter ``training``.
    """

    def __init__(
        self, image: ImageShape | None = None, told: frozenset[Callable[..., Any]] = frozenset()
    ) -> None:
        super().__init__(autowrap_functions=tuple(told))
        self.failed_in: str | None = None
        self.image, self.told = image, told
        self.shapes: ShapeFollower | None = None
        self.traced_through: list[fx.Proxy] = []

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: Any = None) -> fx.Graph:
        if self.image is not None and isinstance(root, nn.Module):
            self.shapes = ShapeFollower(root, self.image)
        graph = super().trace(root, concrete_args)
        whole = [node for node in graph.nodes if node.target in self.told]
        for node in (*whole, *(result.node for result in self.traced_through)):
            node.meta.pop("is_wrapped", None)  # its source would declare, say, torch.cat to be whole
        return graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return fx.Proxy(node, self) if self.shapes is None else SizedProxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self.shapes is not None and self.shapes.busy:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, *arguments: Any, **settings: Any) -> Any:
        """A value of the graph; a number where sizes alone decide it.

        torchvision has its window attention recorded whole, for sizes that fx does not know.
        """
        of_torchvision = str(getattr(target, "__module__", "")).startswith(_TRACED_THROUGH)
        if (self.shapes is not None and of_torchvision) or (
            target in self.told and not self._hands_on(target, *arguments[:2])
        ):
            self.traced_through.append(_one_tensor(target, *arguments[:2]))
            return self.traced_through[-1]
        made = super().create_proxy(kind, target, *arguments, **settings)
        return made if self.shapes is None else known(made)

    def _hands_on(self, function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
        """Whether a function gives back, in evaluation, a tensor that it is given; tried, without a trace."""
        before = len(self.graph.nodes)
        given = inspect.signature(function).bind(*args, **kwargs)
        given.arguments["training"] = False
        result = function(*given.args, **given.kwargs)
        for node in reversed(list(self.graph.nodes)[before:]):
            self.graph.erase_node(node)
        return any(result is argument for argument in (*args, *kwargs.values()))

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return (
            super().is_leaf_module(module, module_qualified_name)
            or isinstance(module, nn.LayerNorm)
            or depends_on_mode(module)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.shapes is not None and self.shapes.busy:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # passed on; a forward may raise anything, and where is noted first
            if self.failed_in is None:
                self.failed_in = self.path_of_module(m)
            raise

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The parts that a tensor is cut into, where the call or the sizes say how many."""
        parts = _parts(obj.node) if self.shapes is None else _known_length(obj)
        whole: Any = obj
        return super().iter(obj) if parts is None else iter([whole[index] for index in range(parts)])

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        def forward(self: nn.Module, x: Any) -> Any:
            return root_fn(self, x)

        return super().create_args_for_root(forward if is_module else root_fn, is_module, concrete_args)

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, type_expr: Any = None
    ) -> fx.Node:
        """Functions and methods are named after the module that calls them, as its layers are."""
        path = self.scope.module_path
        if path and kind in ("call_function", "call_method"):
            name = f"{path}.{name or getattr(target, '__name__', target)}"
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if self.shapes is not None and kind != "output":
            self.shapes.note(node)
        return node


def _one_tensor(function: Callable[..., Any], args: Any, kwargs: Any) -> fx.Proxy:
    """What the function gives, traced through."""
    result = function(*args, **kwargs)
    if isinstance(result, fx.Proxy):
        return result
    raise LegalityError(
        f"A function that is told the mode gives one tensor; {function.__name__} gives a "
        f"{type(result).__name__}, in a network that does something else in training than in evaluation. "
        "Move what reads `self.training` into a module of its own, without children."
    )


def _known_length(value: fx.Proxy) -> int | None:
    try:
        return len(value)
    except RuntimeError:
        return None


def _parts(node: fx.Node) -> int | None:
    """How many tensors a chunk into so many, or a split by a list of sizes, gives."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", None)
    if name not in _CUTS:
        return None
    names = ("chunks", "split_size", "split_size_or_sections", "split_sizes")
    named = next((node.kwargs[given] for given in names if given in node.kwargs), None)
    by = node.args[1] if len(node.args) > 1 else named
    if name == "chunk":
        return by if isinstance(by, int) else None
    return len(by) if isinstance(by, (list, tuple)) else None


def trace(model: nn.Module, image: ImageShape | None = None) -> fx.GraphModule:
    """Symbolic trace of ``model``, sharing its parameters and leaving it as it was.

    It is traced in both modes, which must agree but for what is known to follow the mode: dropouts and
    BatchNorms that are called as functions become layers, as does every function that computes with the
    weight of one (``rewrite``). Products of attention become plain ones (``decompose``). Where they disagree
    at first, functions that are told the mode and leave a tensor alone in evaluation are recorded whole.

    Args:
        image: (C, H, W) of the images it is for: every size but the batch's is then a number while tracing,
            and forward may branch on sizes. Without it no size is known.

    Raises:
        LegalityError: the forward pass branches on values, or on sizes that nobody knows, does something else
            in training than in evaluation, calls a dropout that is always on, or gives more than one tensor.
    """
    evaluating, in_training = _in_both_modes(model, image)
    _check_names(evaluating)
    network = fx.GraphModule(model, evaluating, type(model).__name__)
    for name in _constants_of(model):
        delattr(model, name)
    _check_interface(network, type(model).__name__)
    check_in_place(network)
    as_layers(network, model, in_training)
    decompose_products(network)
    respell(network)
    write_out_adaptive_maxima(network)
    write_out_patches(network)
    write_out_resizing(network)
    compute_alike_once(network)
    fold_constants(network)
    merge_duplicates(network)
    network.graph.eliminate_dead_code()
    pad_maxima_by_zeros(network)
    name_every_use(network)
    network.graph.lint()
    network.recompile()
    return network


def _in_both_modes(model: nn.Module, image: ImageShape | None) -> tuple[fx.Graph, ModeArguments]:
    """The graph in evaluation, and what functions that follow the mode are given in training."""

    def recorded(told: frozenset[Callable[..., Any]]) -> tuple[fx.Graph, ModeArguments]:
        evaluating, training = (_recorded(model, image, told, training=mode) for mode in (False, True))
        return evaluating, _mode_arguments(evaluating, training, type(model).__name__)

    try:
        return recorded(frozenset())
    except _ModesDifferError:
        told = functions_told_the_mode(model)
        if not told:
            raise
        return recorded(told)


class _ModesDifferError(LegalityError):
    """Training has another graph than evaluation."""


def _check_names(graph: fx.Graph) -> None:
    """Refuse paths that the source of a traced network could not hold."""
    for node in graph.nodes:
        words = [part for part in str(node.target).split(".") if keyword.iskeyword(part)]
        if node.op in ("call_module", "get_attr") and words:
            raise LegalityError(
                f"{node.target}: {words[0]!r} is a word of Python, and a traced network is Python source. "
                "Give the module another name."
            )


def _recorded(
    model: nn.Module, image: ImageShape | None, told: frozenset[Callable[..., Any]], *, training: bool
) -> fx.Graph:
    tracer = ImageTracer(image, told)
    try:
        with _in_mode(model, training), sizes_of_the_graph():
            return tracer.trace(model)
    except SaqError:
        raise
    # forward is the user's: handed a stand-in for a tensor, it may raise anything.
    except Exception as error:
        where = (f" in {tracer.failed_in}" if tracer.failed_in else "") + _line_of(error)
        raise LegalityError(
            "Quantizers are placed on a torch.fx graph, and "
            f"{type(model).__name__} cannot be traced{where}: {error}. Write forward without branches or "
            "loops that depend on tensor values or shapes, or mark the part with torch.fx.wrap."
        ) from error


def _line_of(error: Exception) -> str:
    """Where the network's own code was when it failed."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno}: {theirs[-1].line})" if theirs else ""


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put the whole model into a mode; afterwards every mode, buffer and attribute is what it was.

    Tracing runs forward with real buffers, and a forward in training may count batches in one; others keep
    what they have computed, in attributes or tables, for the next call.
    """
    attributes = {module: _kept(module) for module in model.modules()}
    buffers = {buffer: buffer.clone() for buffer in model.buffers()} if training else {}
    try:
        model.train(training)
        yield
    finally:
        for module, before in attributes.items():
            made = {} if training else _constants_of(module)
            vars(module).clear()
            vars(module).update(before | made)
        with torch.no_grad():
            for buffer, values in buffers.items():
                buffer.copy_(values)


def _constants_of(module: nn.Module) -> dict[str, Any]:
    """Tensors that the tracer found in the code of forward, and keeps at the network traced."""
    return {name: value for name, value in vars(module).items() if name.startswith(_CONSTANT)}


def _kept(module: nn.Module) -> dict[str, Any]:
    """What a module holds, with copies of its own tables and lists."""
    return {
        name: copy.copy(value) if type(value) in (dict, list, set) else value
        for name, value in vars(module).items()
    }


def _mode_arguments(evaluating: fx.Graph, training: fx.Graph, name: str) -> ModeArguments:
    """By node of ``evaluating``, the arguments in training of functions that follow the mode, or may.

    Raises:
        LegalityError: the two graphs differ in more than arguments of functions.
    """
    positions = [{node: at for at, node in enumerate(graph.nodes)} for graph in (evaluating, training)]
    nodes = {at: node for node, at in positions[0].items()}
    found: ModeArguments = {}
    for node, other in zip(evaluating.nodes, training.nodes, strict=False):
        differs = _arguments(node, positions[0]) != _arguments(other, positions[1])
        if (node.op, _target(node)) != (other.op, _target(other)) or (differs and node.op != "call_function"):
            raise _ModesDifferError(
                f"forward must do the same in training as in evaluation, but for layers; {name} calls "
                f"{other.name} ({_shown(other)}) in training where it calls {node.name} ({_shown(node)}) in "
                "evaluation, and one graph cannot hold both. Switch it off if the constructor can (auxiliary "
                "classifiers, for example, by model.arguments), or move what reads `self.training` into a "
                "module of its own, without children."
            )
        if differs or node.target in FOLLOW_MODE:
            found[node] = fx.map_arg(
                (other.args, dict(other.kwargs)), lambda argument: nodes[positions[1][argument]]
            )
    return found


def _target(node: fx.Node) -> object:
    is_constant = node.op == "get_attr" and str(node.target).startswith(_CONSTANT)
    return _CONSTANT if is_constant else node.target


def _arguments(node: fx.Node, positions: dict[fx.Node, int]) -> object:
    def position(argument: fx.Node) -> Any:
        return _At(positions[argument])

    return fx.map_arg((node.args, dict(node.kwargs)), position)


@dataclass(frozen=True)
class _At:
    """The value of the node at this position."""

    position: int


def _shown(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _check_interface(network: fx.GraphModule, name: str) -> None:
    outputs = network.graph.output_node().args[0]
    if not isinstance(outputs, fx.Node):
        raise LegalityError(
            f"A network gives one tensor, the logits (N, classes); {name} returns {outputs}. "
            "Wrap it in a module that returns the logits alone."
        )
