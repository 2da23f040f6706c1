"""One float operation of a deploy view with numbers, and the units in which its roundings are counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor, fx, nn

from saq_qat.quant.trace import graph

__all__ = ["FUNCTION", "ROUNDING", "UNIT_ROUNDOFF", "FloatOperation", "accumulated"]

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one rounding to float32."""
ROUNDING = 2 * UNIT_ROUNDOFF
"""One rounding, counted twice."""
FUNCTION = 12 * UNIT_ROUNDOFF
"""Error of exp, erf and their like, in units of their own size, or of the number they multiply: twice the
largest found over -12 to 12 (GELU 1.9 in ONNX Runtime and 6.2 in torch, tanh 5.5, sigmoid 2.6)."""

_LAMBDA = 2.0


def accumulated(terms: int) -> float:
    """How far the sum of this many terms is off, relative to the sum of their magnitudes.

    No more than ``lambda * sqrt(terms) * 2^-24``, but for a probability that falls with the square of lambda
    in the exponent (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci.
    Comput. 41(5), 2019); lambda is 2.
    """
    return _LAMBDA * sqrt(terms) * UNIT_ROUNDOFF


@dataclass(frozen=True)
class FloatOperation:
    """A node, and the numbers around it.

    Attributes:
        values: float64, of each node of the view.
        bounds: of the error of each element of what the node reads, parameters and sizes apart.
    """

    view: fx.GraphModule
    node: fx.Node
    values: Mapping[fx.Node, Any]
    bounds: Mapping[fx.Node, Any]

    @property
    def module(self) -> nn.Module | None:
        return graph.module_of(self.view, self.node)

    @property
    def result(self) -> Tensor:
        return torch.as_tensor(self.values[self.node])

    @property
    def operands(self) -> list[tuple[Tensor, Tensor]]:
        """Value and bound of each positional tensor or number."""
        return [self._operand(term) for term in self.node.args if isinstance(term, (fx.Node, int, float))]

    def _operand(self, term: fx.Node | float) -> tuple[Tensor, Tensor]:
        if not isinstance(term, fx.Node):
            return torch.tensor(term, dtype=self.result.dtype), torch.zeros((), dtype=self.result.dtype)
        value = torch.as_tensor(self.values[term])
        return value, self.bounds.get(term, torch.zeros_like(value))

    def replay(self, values: Mapping[fx.Node, Any]) -> Any:
        """What the node makes of other ``values`` than those it read."""
        arguments, keywords = fx.node.map_arg(
            (self.node.args, self.node.kwargs), lambda node: values.get(node, self.values[node])
        )
        return getattr(fx.Interpreter(self.view), self.node.op)(self.node.target, arguments, keywords)

    def unknown(self) -> Any:
        """Infinite bounds, as the result is shaped."""
        return fx.node.map_aggregate(self.values[self.node], _infinite)


def _infinite(value: Any) -> Any:
    return torch.full_like(value, inf) if isinstance(value, Tensor) else value
