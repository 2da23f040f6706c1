"""Bounds of float32 errors hold for what torch computes, are narrow, and grow with errors that are read."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat_export.proof.float_operation import UNIT_ROUNDOFF
from saq_qat_export.proof.ties import ONNX_RUNTIME, ErrorBounds

Function = Callable[[Tensor], Tensor]


class Calls(nn.Module):
    """One function of floats that carry an error of their own: a third of the input is no float32."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x / 3.0)


def result_of(view: fx.GraphModule, x: Tensor) -> tuple[fx.Node, dict[fx.Node, Tensor]]:
    interpreter = fx.Interpreter(view, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(x)
    (node,) = view.graph.output_node().all_input_nodes
    return node, interpreter.env


def numbers(*shape: int, shift: float = 0.0, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 4 + shift


def bound_and_error(function: Function, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The bound, the error that float32 makes, and the real values."""
    view = fx.symbolic_trace(Calls(function))
    node, values = result_of(view.double(), x.double())
    with torch.no_grad():
        bound = ErrorBounds(view, values, ONNX_RUNTIME).of(node)
    real = values[node].clone()
    _, single = result_of(view.float(), x)
    return bound, (single[node].double() - real).abs(), real


def norm(*, shift: float) -> nn.LayerNorm:
    layer = nn.LayerNorm(64)
    layer.weight.data.copy_(numbers(64, seed=1))
    layer.bias.data.fill_(shift)
    return layer


OPERATIONS: dict[str, Function] = {
    "gelu": F.gelu,
    "gelu, as a module": nn.GELU(),
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": nn.Hardswish(),
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "clamp": lambda x: x.clamp(-1.0, 2.0),
    "softmax": nn.Softmax(dim=-1),
    "softmax over rows": lambda x: torch.softmax(x, 1),
    "softmax as a method": lambda x: x.softmax(-1),
    "LayerNorm": norm(shift=0.0),
    "LayerNorm with a shift": norm(shift=3.0),
    "LayerNorm as a function": lambda x: F.layer_norm(x, (64,)),
    "normalised": lambda x: F.normalize(x, dim=-1),
    "normalised over rows": lambda x: F.normalize(x, 2.0, 1),
    "residual sum": lambda x: x + torch.tanh(x),
    "difference": lambda x: x - 0.3,
    "product with a number": lambda x: x * 0.125,
    "square": lambda x: x * x,
    "quotient": lambda x: x / (x * x + 1.0),
    "matrix product": lambda x: torch.matmul(x, x.transpose(1, 2)),
    "mean": lambda x: x.mean(1),
    "pool": lambda x: F.avg_pool2d(x.unsqueeze(1), 4),
    "max pool": lambda x: F.max_pool2d(x.unsqueeze(1), 4),
    "concatenation": lambda x: torch.cat([x, x * x], 1),
    "parts": lambda x: x.chunk(2, 1)[1],
    "one token": lambda x: x[:, 0],
    "padding": lambda x: F.pad(x, (0, 1, 2, 0)),
    "shifted windows": lambda x: torch.roll(x, (2, 1), (1, 2)).narrow(1, 0, 8),
    "reshape": lambda x: x.reshape(2, -1).contiguous(),
}


@pytest.mark.parametrize("shift", [0.0, 50.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_error_leaves_its_bound(name: str, shift: float) -> None:
    bound, error, _ = bound_and_error(OPERATIONS[name], numbers(4, 48, 64, shift=shift))
    assert bound.shape == error.shape
    assert bool((error <= bound).all())
    assert shift or float(error.max()) > 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_bounds_are_narrow(name: str) -> None:
    """Else they would excuse anything. Pools count as many terms as the image has."""
    bound, error, _ = bound_and_error(OPERATIONS[name], numbers(4, 48, 64))
    assert float(bound.median()) <= (200 if name == "pool" else 60) * float(error.quantile(0.99))


def test_what_has_no_rule_has_no_bound() -> None:
    bound, _, _ = bound_and_error(lambda x: torch.sin(x) + x, numbers(2, 3, 4))
    assert bool(bound.isinf().all())


def test_an_unknown_error_times_zero_is_unknown() -> None:
    bound, _, _ = bound_and_error(lambda x: torch.sin(x) * 0.0 @ x.transpose(1, 2), numbers(2, 3, 4))
    assert bool(bound.isinf().all())


def test_a_function_of_the_same_name_that_is_not_torchs_has_no_bound() -> None:
    view = fx.symbolic_trace(Calls(lambda x: gelu(x)))
    node, values = result_of(view, numbers(2, 3).double())
    assert bool(ErrorBounds(view, values, ONNX_RUNTIME).of(node).isinf().all())


def test_errors_are_handed_on_along_a_residual_stream() -> None:
    """Each of forty sums adds its rounding to those before."""

    def stream(x: Tensor) -> Tensor:
        for _ in range(40):
            x = x + 0.7
        return x

    bound, error, real = bound_and_error(stream, numbers(2, 8, shift=30.0))
    assert bool((error <= bound).all())
    roundings = bound / (UNIT_ROUNDOFF * real.abs())
    assert bool((roundings > 2 * 20).all()) and bool((roundings < 2 * 42).all())


@fx.wrap
def gelu(x: Tensor) -> Tensor:
    return x * 2
