"""Tracing with torch.fx: what is recorded as one node, and which inputs a network has."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import fx, nn

__all__ = ["ImageTracer"]


class ImageTracer(fx.Tracer):
    """Records what a batch of images passes through; whatever else ``forward`` takes keeps its default.

    Recorded whole are, beside the layers of torch.nn, subclasses of LayerNorm, and every module without
    children whose ``forward`` reads ``training``, such as stochastic depth: traced through, it would stay for
    ever in the mode it was traced in.
    """

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return (
            super().is_leaf_module(module, module_qualified_name)
            or isinstance(module, nn.LayerNorm)
            or _depends_on_mode(module)
        )

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
        return super().create_node(kind, target, args, kwargs, name, type_expr)


def _depends_on_mode(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "training" in code.co_names and next(module.children(), None) is None
