"""Curvature beside dense Hessians by torch, an independent library, and matrices of known spectrum."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.func import functional_call

from saq_qat.analysis.hessian import eigenvalues, trace
from saq_qat.analysis.surface import LossSurface, loss_surface
from saq_qat.errors import RecipeError, SaqError
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from tests.quant.networks import Attention, Gated, NoNorm, Residual, Swish, images, policy, quantized

LABELS = torch.tensor([0, 1, 2, 0, 2, 1])
BATCHES = [(images(6).double()[:4], LABELS[:4]), (images(6).double()[4:], LABELS[4:])]


def assert_is_hessian(surface: LossSurface, matrix: Tensor) -> None:
    """Of vectors that have a part along every eigenvector."""
    sizes = [slot.numel() for slot in surface.slots]
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        vector = torch.randn(surface.size, dtype=torch.float64, generator=generator)
        pairs = zip(torch.split(vector, sizes), surface.slots, strict=True)
        product = surface.hessian_product([part.reshape(slot.shape) for part, slot in pairs])
        found = torch.cat([part.reshape(-1) for part in product])
        assert torch.allclose(found, matrix @ vector, atol=1e-11, rtol=1e-6)


@contextmanager
def affine_activations(network: fx.GraphModule) -> Iterator[None]:
    """Every activation quantizer as value + slope * (x - x0), which torch differentiates itself."""

    def affine(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        assert isinstance(module, Quantizer)
        (x,) = inputs
        lower, upper = module.clip_bounds()
        inside = ((x >= lower) & (x <= upper)).double().detach()
        return out.detach() + inside * (x - x.detach())

    of_weights = {id(layer.weight_quantizer) for layer in quant_layers(network).values()}
    handles = [
        module.register_forward_hook(affine)
        for module in network.modules()
        if isinstance(module, Quantizer) and id(module) not in of_weights
    ]
    yield
    for handle in handles:
        handle.remove()


def hessian_by_torch(network: fx.GraphModule) -> Tensor:
    layers = list(quant_layers(network).values())
    sizes = [layer.weight.numel() for layer in layers]
    x, labels = (torch.cat(parts) for parts in zip(*BATCHES, strict=True))

    def loss(flat: Tensor) -> Tensor:
        for layer, part in zip(layers, torch.split(flat, sizes), strict=True):
            layer.slot = part.reshape(layer.weight.shape)
        return F.cross_entropy(network(x), labels)

    with affine_activations(network):
        start = torch.zeros(sum(sizes), dtype=torch.float64)
        hessian = torch.autograd.functional.hessian
        found = hessian(loss, start, vectorize=True)  # type: ignore[no-untyped-call]  # torch has no types
    for layer in layers:
        layer.close()
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize(
    ("model", "kind"),
    [(Residual, "saq"), (Gated, "saq"), (NoNorm, "saq"), (Swish, "saq"), (NoNorm, "lsq"), (Residual, "pact")],
)
def test_the_hessian_is_that_of_a_network_with_affine_activations(model: type[nn.Module], kind: str) -> None:
    quant = policy()
    activation = quant.activation.model_copy(update={"kind": kind})
    network, _ = quantized(model(), quant.model_copy(update={"activation": activation}))
    network.double()
    expected = hessian_by_torch(network)
    with loss_surface(network, BATCHES) as surface:
        assert_is_hessian(surface, expected)
        largest = eigenvalues(surface, 3, tolerance=1e-9)
    assert expected.abs().max() > 1e-4
    spectrum = torch.linalg.eigvalsh(expected).flip(0)[:3]
    assert largest.converged
    assert torch.allclose(torch.tensor(largest.eigenvalues, dtype=torch.float64), spectrum, rtol=1e-6)


def test_attention_with_offsets_has_a_symmetric_hessian_of_torchs_values() -> None:
    quant = policy(8)
    activation = quant.activation.model_copy(update={"kind": "lsq", "offset": "bounded"})
    network, _ = quantized(Attention(), quant.model_copy(update={"activation": activation}))
    network.double()
    expected = hessian_by_torch(network)
    with loss_surface(network, BATCHES) as surface:
        assert_is_hessian(surface, expected)


def test_a_float_networks_weights_are_moved_themselves() -> None:
    network = NoNorm().double()
    weights = {n: p for n, p in network.named_parameters() if n.endswith("weight")}
    x, labels = (torch.cat(parts) for parts in zip(*BATCHES, strict=True))

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [w.numel() for w in weights.values()])
        moved = {n: w.detach() + p.reshape(w.shape) for (n, w), p in zip(weights.items(), parts, strict=True)}
        return F.cross_entropy(functional_call(network, moved, (x,)), labels)

    count = sum(w.numel() for w in weights.values())
    start = torch.zeros(count, dtype=torch.float64)
    expected = torch.autograd.functional.hessian(loss, start)  # type: ignore[no-untyped-call]  # as above
    assert isinstance(expected, Tensor)
    with loss_surface(network, BATCHES) as surface:
        assert surface.names == ("conv1.weight", "conv2.weight", "fc.weight")
        assert_is_hessian(surface, expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # its imports script functions with torch.jit
def test_an_independent_library_finds_the_same() -> None:
    curvlinops = pytest.importorskip("curvlinops", reason="needs the extra dev: compares with its Hessian")
    network, _ = quantized(NoNorm())
    network.double()
    with loss_surface(network, BATCHES) as surface:
        largest, estimated = eigenvalues(surface, 4, tolerance=1e-9), trace(surface, probes=50)
    slots = in_plain_operations(network)
    operator = curvlinops.HessianLinearOperator(network, nn.CrossEntropyLoss(), slots, BATCHES)
    theirs = operator @ torch.eye(operator.shape[0], dtype=torch.float64)
    spectrum = torch.linalg.eigvalsh(theirs).flip(0)[:4].tolist()
    assert largest.eigenvalues == pytest.approx(spectrum, rel=1e-6)
    assert abs(estimated.mean - float(theirs.trace())) < 4 * estimated.standard_error


class StraightThrough(nn.Module):
    """A quantizer of activations in operations that every transform of torch knows."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = self.quantizer.clip_bounds()
        clipped = torch.minimum(torch.maximum(x, lower), upper)
        return clipped + (self.quantizer.codes(x) * self.quantizer.scale - clipped).detach()


class Constant(nn.Module):
    """A quantizer of one weight."""

    def __init__(self, quantized: Tensor) -> None:
        super().__init__()
        self.register_buffer("quantized", quantized)

    def forward(self, _: Tensor) -> Tensor:
        return self.get_buffer("quantized")


def in_plain_operations(network: fx.GraphModule) -> list[nn.Parameter]:
    """The network without functions of its own; its slots are parameters, which are returned."""
    slots = []
    for layer in quant_layers(network).values():
        layer.set_submodule("weight_quantizer", Constant(layer.projected_weight().detach()))
        slots.append(nn.Parameter(torch.zeros_like(layer.weight)))
        layer.slot = slots[-1]
    for name, module in list(network.named_modules()):
        if isinstance(module, Quantizer):
            network.set_submodule(name, StraightThrough(module))
    return slots


@dataclass(frozen=True)
class Quadratic(LossSurface):
    """x'Ax / 2 in place of a network."""

    matrix: Tensor

    def hessian_product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        return [self.matrix @ vector[0]]


def quadratic(spectrum: Sequence[float]) -> Quadratic:
    size = len(spectrum)
    generator = torch.Generator().manual_seed(size)
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    matrix = basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T
    slots = (torch.zeros(size, dtype=torch.float64),)
    return Quadratic(("x",), slots, slots, nn.Identity(), [], matrix)


@given(st.lists(st.floats(-5, 5), min_size=30, max_size=40), st.integers(1, 4))
def test_a_known_spectrum_is_found_and_residuals_bound_the_errors(spectrum: list[float], count: int) -> None:
    spectrum = [*spectrum, 8.0]
    found = eigenvalues(quadratic(spectrum), count, tolerance=1e-6)
    assert len(found.eigenvalues) == count
    expected = sorted(spectrum, reverse=True)[:count]
    for value, residual in zip(found.eigenvalues, found.residuals, strict=True):
        assert min(abs(value - true) for true in spectrum) <= residual + 1e-9
    assert found.eigenvalues[0] == pytest.approx(expected[0], abs=1e-4)


def test_the_largest_eigenvalue_is_not_the_largest_magnitude() -> None:
    found = eigenvalues(quadratic([-9.0, *np.linspace(0, 2, 40)]), 2, tolerance=1e-8)
    assert found.eigenvalues == pytest.approx([2.0, 2.0 - 2 / 39], rel=1e-6)


def test_what_did_not_converge_is_told() -> None:
    crowded = quadratic([*(1 - 1e-9 * np.arange(60))])
    with pytest.raises(SaqError, match=r"No eigenvalue converged .* within 1 restarts"):
        eigenvalues(quadratic([*np.linspace(0.999999, 1, 200)]), tolerance=1e-12, restarts=1)
    assert eigenvalues(crowded, tolerance=1e-3).converged


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, 1.0, float("nan"), float("inf")])
def test_a_tolerance_that_nothing_can_meet_is_refused_before_any_product(tolerance: float) -> None:
    done: list[int] = []
    with pytest.raises(RecipeError, match="tolerance of eigenvalues must lie between 0 and 1"):
        eigenvalues(quadratic([1.0, 2.0, 3.0]), tolerance=tolerance, on_product=done.append)
    assert not done


def test_the_trace_of_a_diagonal_needs_one_probe_and_has_no_error() -> None:
    slots = (torch.zeros(5, dtype=torch.float64),)
    diagonal = torch.diag(torch.arange(5, dtype=torch.float64))
    found = trace(Quadratic(("x",), slots, slots, nn.Identity(), [], diagonal), probes=4)
    assert (found.mean, found.standard_error) == (10.0, 0.0)


def test_numbers_depend_on_the_seed_and_on_nothing_else() -> None:
    network, _ = quantized(NoNorm())
    batches = [(x.float(), y) for x, y in BATCHES]
    with loss_surface(network, batches) as surface:
        first, again, other = (trace(surface, probes=3, seed=seed) for seed in (1, 1, 2))
        assert eigenvalues(surface, 2) == eigenvalues(surface, 2)
    assert first == again and first.mean != other.mean


def test_the_network_is_left_as_it_was() -> None:
    network, _ = quantized(Residual())
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with loss_surface(network, [(x.float(), y) for x, y in BATCHES]) as surface:
        trace(surface, probes=2)
        surface.loss_at([torch.ones_like(slot) for slot in surface.slots])
        assert not any(bool(slot.any()) for slot in surface.slots)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert all(layer.slot is None for layer in quant_layers(network).values())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class _OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, *upstream: Tensor) -> Tensor:
        return upstream[0]


class Once(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = _OnceDifferentiable.apply(self.fc(x.flatten(1)))
        return found


def test_an_operation_without_a_second_derivative_is_refused_by_its_reason() -> None:
    with (
        loss_surface(Once().double(), BATCHES) as surface,
        pytest.raises(SaqError, match=r"differentiated twice.*trying to differentiate twice"),
    ):
        eigenvalues(surface)


@pytest.mark.parametrize("count", [0, 999_999])
def test_more_eigenvalues_than_there_are_are_refused(count: int) -> None:
    with loss_surface(NoNorm().double(), BATCHES) as surface, pytest.raises(RecipeError, match="asked for"):
        eigenvalues(surface, count)


def test_one_probe_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs two probes"):
        trace(quadratic([1.0, 2.0]), probes=1)


def test_numbers_that_are_not_finite_are_refused() -> None:
    network = NoNorm().double()
    with torch.no_grad():
        network.fc.bias[0] = float("inf")
    with loss_surface(network, BATCHES) as surface, pytest.raises(SaqError, match="needs finite derivatives"):
        eigenvalues(surface)
