"""What every training step promises beside the numbers of the reference."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from saq_qat.errors import DivergedError, RecipeError
from saq_qat.optim.build import build_optimizer, build_step, learning_rate, set_learning_rate
from saq_qat.optim.passes import Objective
from saq_qat.optim.update import TrainingStep
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLinear, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import AdamW, EfficientTraining, Plain, Sam, Saq, Sgd

Loss = Callable[[Tensor, Tensor], Tensor]
IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4
METHODS = (
    Plain(kind="plain"),
    Sam(kind="sam", rho=0.05),
    Saq(kind="saq", rho=0.3),
    Saq(kind="saq", rho=0.3, case=2, efficient=EfficientTraining(tau=3)),
)


def make_network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    weights = [Quantizer(weight_grid("saq", 3), bits=3) for _ in range(2)]
    return nn.Sequential(
        QuantConv2d(nn.Conv2d(3, 5, 3, bias=False), weights[0], normalize=True),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Dropout(dropout),
        Quantizer(activation_grid("saq", 4, signed=False), bits=4),
        nn.Flatten(),
        QuantLinear(nn.Linear(80, 4), weights[1]),
    )


def make_step(
    network: nn.Module,
    method: Plain | Sam | Saq,
    *,
    loss: Loss = F.cross_entropy,
    lr: float = 0.05,
    optimizer: Sgd | AdamW | None = None,
    **options: Any,
) -> TrainingStep:
    recipe = optimizer or Sgd(kind="sgd", momentum=0.9)
    built = build_optimizer(network, recipe)
    set_learning_rate(built, lr)
    return build_step(Objective(network, loss, **options), built, method, max_norm=recipe.max_norm)


def parameters(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def saq(**changes: Any) -> Saq:
    return Saq(kind="saq", **{"rho": 0.3, **changes})


@pytest.mark.parametrize("objective", ["sum", "mean", "pql"])
def test_without_a_radius_both_gradients_are_the_plain_one(objective: Literal["sum", "mean", "pql"]) -> None:
    plain, sharp = make_network(), make_network()
    make_step(plain, METHODS[0]).step(IMAGES, LABELS)
    make_step(sharp, saq(rho=0.0, objective=objective)).step(IMAGES, LABELS)
    times = 2.0 if objective == "sum" else 1.0
    for a, b in zip(plain.parameters(), sharp.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.equal(times * a.grad, b.grad)


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda m: m.kind)
def test_second_pass_leaves_batch_norm_as_a_single_pass_does(method: Sam | Saq) -> None:
    plain, sharp = make_network(), make_network()
    make_step(plain, METHODS[0]).step(IMAGES, LABELS)
    make_step(sharp, method).step(IMAGES, LABELS)
    for name, value in plain.named_buffers():
        assert torch.equal(value, sharp.get_buffer(name)), name


@pytest.mark.parametrize("kind", ["weight", "bias", "norm", "clip_level"])
def test_only_the_optimizer_moves_parameters(kind: Literal["weight", "bias", "norm", "clip_level"]) -> None:
    network = make_network()
    before = parameters(network)
    result = make_step(network, saq(perturb=(kind,), rho=0.7), lr=0.0).step(IMAGES, LABELS)
    assert result.epsilon_norm == pytest.approx(0.7, rel=1e-5)
    assert result.perturbed_loss != result.loss
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("case", [1, 2, 3])
def test_nothing_of_epsilon_stays_behind(case: Literal[1, 2, 3]) -> None:
    network = make_network()
    make_step(network, saq(case=case)).step(IMAGES, LABELS)
    assert all(layer.slot is None and layer.shift is None for layer in quant_layers(network).values())
    copy.deepcopy(network)


def failing_in_second_pass() -> Loss:
    calls = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return F.cross_entropy(logits, labels)

    return loss


@pytest.mark.parametrize("method", [METHODS[1], saq(perturb=("weight", "norm")), saq(case=2)])
def test_an_exception_in_the_second_pass_restores_the_network(method: Sam | Saq) -> None:
    network = make_network()
    before = parameters(network)
    with pytest.raises(KeyboardInterrupt):
        make_step(network, method, loss=failing_in_second_pass()).step(IMAGES, LABELS)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(layer.slot is None and layer.shift is None for layer in quant_layers(network).values())
    assert all(m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("method", METHODS[1:3], ids=lambda m: m.kind)
def test_both_passes_drop_the_same(method: Sam | Saq) -> None:
    network = make_network(dropout=0.5)
    seen: list[Tensor] = []
    network[3].register_forward_hook(lambda _m, _i, output: seen.append(output == 0))
    network[3].register_forward_pre_hook(lambda _m, args: (torch.ones_like(args[0]),))
    make_step(network, method).step(IMAGES, LABELS)
    assert len(seen) == 2 and torch.equal(seen[0], seen[1]) and seen[0].any()


def test_reuse_steps_differ_from_plain_steps_and_need_one_pass() -> None:
    efficient, plain = make_network(), make_network()
    strategy = make_step(efficient, saq(efficient=EfficientTraining(tau=4)))
    strategy.step(IMAGES, LABELS)
    plain.load_state_dict(efficient.state_dict())
    result = strategy.step(IMAGES, LABELS)
    assert result.perturbed_loss is None
    make_step(plain, METHODS[0]).step(IMAGES, LABELS)
    for (name, a), b in zip(efficient.named_parameters(), plain.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert a.numel() == 1 or not torch.allclose(a.grad, 2 * b.grad), name


def poisoned(passes: set[int]) -> Loss:
    """A loss that is NaN in the passes with these numbers, counted from 0."""
    count = -1

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return F.cross_entropy(logits, labels) * (float("nan") if count in passes else 1.0)

    return loss


@pytest.mark.parametrize("bad", [{2}, {3}])
def test_a_step_that_is_not_finite_in_either_pass_changes_nothing_and_is_made_up_for(bad: set[int]) -> None:
    network = make_network()
    loss = poisoned(bad)
    strategy = make_step(network, saq(efficient=EfficientTraining(tau=2)), loss=loss)
    # Passes 0 and 1 are step 0; step 1 would be pass 2 alone, so a refresh is forced by loading t = 2.
    strategy.step(IMAGES, LABELS)
    strategy.load_state_dict({**strategy.state_dict(), "t": torch.tensor(2)})
    before, g_v = parameters(network), strategy.state_dict()
    result = strategy.step(IMAGES, LABELS)
    assert not result.finite
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    after = strategy.state_dict()
    assert all(torch.equal(g_v[key], after[key]) for key in g_v if key.startswith("g_v/"))
    assert strategy.step(IMAGES, LABELS).perturbed_loss is not None


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.kind)
def test_ten_skipped_steps_in_a_row_end_the_training(method: Plain | Sam | Saq) -> None:
    network = make_network()
    before = parameters(network)
    strategy = make_step(network, method, loss=poisoned(set(range(99))))
    for _ in range(9):
        assert not strategy.step(IMAGES, LABELS).finite
    with pytest.raises(DivergedError, match="10 steps in a row"):
        strategy.step(IMAGES, LABELS)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_constant_loss_gives_no_perturbation_and_no_nan() -> None:
    network = make_network()
    strategy = make_step(network, saq(efficient=EfficientTraining(tau=2)), loss=lambda x, _: (x * 0.0).sum())
    for _ in range(3):
        result = strategy.step(IMAGES, LABELS)
        assert result.finite and result.gradient_norm == 0.0
    assert all(p.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.kind)
@pytest.mark.parametrize("optimizer", [Sgd(kind="sgd"), AdamW(kind="adamw")], ids=lambda o: o.kind)
def test_a_step_goes_on_from_its_saved_state_bit_for_bit(
    method: Plain | Sam | Saq, optimizer: Sgd | AdamW
) -> None:
    network = make_network()
    built = build_optimizer(network, optimizer)
    set_learning_rate(built, 0.01)
    strategy = build_step(Objective(network, F.cross_entropy), built, method)
    for _ in range(2):
        strategy.step(IMAGES, LABELS)
    twin = copy.deepcopy(network)
    other = build_optimizer(twin, optimizer)
    other.load_state_dict(copy.deepcopy(built.state_dict()))
    resumed = build_step(Objective(twin, F.cross_entropy), other, method)
    resumed.load_state_dict(strategy.state_dict())
    for _ in range(3):
        assert strategy.step(IMAGES, LABELS) == resumed.step(IMAGES, LABELS)
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_micro_batches_of_plain_training_give_the_mean_gradient() -> None:
    whole, parts = make_network(), make_network()
    for network in (whole, parts):
        network[1] = nn.Identity()
    make_step(whole, METHODS[0]).step(IMAGES, LABELS)
    make_step(parts, METHODS[0], micro_batch_size=2).step(IMAGES, LABELS)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad)


def test_long_gradients_are_shortened_after_they_are_combined() -> None:
    network = make_network()
    make_step(network, saq(), optimizer=Sgd(kind="sgd", max_norm=1e-3)).step(IMAGES, LABELS)
    total = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
    assert total.item() == pytest.approx(1e-3, rel=1e-3)


def test_autocast_keeps_parameters_and_gradients_in_float32() -> None:
    network = make_network()
    result = make_step(network, saq(), precision="bfloat16").step(IMAGES, LABELS)
    assert result.finite
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


class _Weights(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """Weights of the first layer, as its convolution reads them, pass by pass."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.seen: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.seen.append(args[1].detach().clone())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        (METHODS[1], [torch.bfloat16, torch.float32]),
        (saq(perturb=("weight", "bias")), [torch.bfloat16, torch.float32]),
        (METHODS[2], [torch.bfloat16] * 3),
    ],
    ids=["sam", "saq, with parameters", "saq"],
)
def test_bfloat16_does_not_round_the_perturbation_away(method: Sam | Saq, passes: list[torch.dtype]) -> None:
    """Epsilon is added in float32, or goes through a product of its own."""
    exact, mixed = _Weights(), _Weights()
    for weights, precision in ((exact, "float32"), (mixed, "bfloat16")):
        with weights:
            make_step(make_network(), method, precision=precision).step(IMAGES, LABELS)
    assert [w.dtype for w in mixed.seen] == passes
    before, wanted = exact.seen
    epsilon, applied = wanted - before, sum(w.float() for w in mixed.seen[1:]) - before
    assert F.cosine_similarity(applied.flatten(), epsilon.flatten(), dim=0) > 0.99


def test_gradients_of_a_perturbed_pass_in_bfloat16_are_those_in_float32() -> None:
    """Where no code moves: activations are not quantized, or a rounded product may tip one of them over."""
    found = []
    for precision in ("float32", "bfloat16"):
        network = make_network()
        network[4] = nn.Identity()
        make_step(network, saq(objective="pql", rho=1.0), precision=precision).step(IMAGES, LABELS)
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert F.cosine_similarity(found[0], found[1], dim=0) > 0.999


def test_clip_levels_have_their_own_rate_and_decay() -> None:
    network = make_network()
    recipe = Sgd(kind="sgd", weight_decay=0.1, clip_level_decay=0.2, clip_level_lr=0.5)
    optimizer = build_optimizer(network, recipe)
    set_learning_rate(optimizer, 0.1)
    seen = [(len(g["params"]), g["weight_decay"], g["lr"]) for g in optimizer.param_groups]
    assert seen == [(2, 0.1, 0.1), (3, 0.0, 0.1), (3, 0.2, 0.05)]


def test_a_ball_without_content_is_refused() -> None:
    with pytest.raises(RecipeError, match="nothing to perturb"):
        make_step(nn.Linear(3, 2), saq())


def test_learning_rate_rises_linearly_then_falls_along_a_cosine_to_zero() -> None:
    rates = [learning_rate(step, peak=0.8, steps=20, warmup=4) for step in range(21)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[12] == pytest.approx(0.4)
    assert rates[20] == pytest.approx(0.0, abs=1e-15)
    assert rates[4:] == sorted(rates[4:], reverse=True)
