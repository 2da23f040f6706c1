"""SAQ with a teacher on linear bottlenecks with offsets, against the same written with plain tensors."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.distillation import Distillation
from saq_qat.optim.passes import Objective
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.schema import ActivationQuantizer, EfficientTraining, Quant, Saq, Sgd, WeightQuantizer
from tests.optim.attention_reference import Grid, on_grid

GENERATOR = torch.Generator().manual_seed(11)
IMAGES = torch.randn(3, 8, 3, 6, 6, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(5, (3, 8), generator=GENERATOR)
TEACHER = nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double().requires_grad_(False)
LAYERS = ("stem", "expand", "depthwise", "project", "fc")
EDGE, LOW = Grid(-127, 127, unit=127), Grid(0, 15, unit=15)
RHO, RATE, DECAY, BETA = 0.4, 0.02, 0.01, 0.7


class MobileBlock(nn.Module):
    """An inverted residual's layers, from one linear bottleneck to the next, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.expand, self.expand_bn = nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(6)
        self.project, self.project_bn = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_bn(self.stem(x))
        x = F.relu6(self.expand_bn(self.expand(x)))
        x = F.relu6(self.depthwise_bn(self.depthwise(x)))
        logits: Tensor = self.fc(self.project_bn(self.project(x)).mean((2, 3)))
        return logits


def make_network() -> fx.GraphModule:
    torch.manual_seed(3)
    quant = Quant(
        weight=WeightQuantizer(kind="saq", bits=4),
        activation=ActivationQuantizer(kind="saq", bits=4, offset="signed"),
        quantize_image=False,
        placement="paper",
    )
    network, _ = quantize(MobileBlock(), quant, ("onnxruntime",))
    calibrate(network, [IMAGES[0].float()])
    return network.double().train()


def on_odd_grid(v: Tensor, alpha: Tensor) -> Tensor:
    """Paper Eq. 1 for 4 bits."""
    a, n = alpha.abs(), 15
    r = v / a
    c = torch.where(r < -1, -torch.ones_like(r), torch.where(r > 1, torch.ones_like(r), r))
    share = n * (c + 1) / 2
    return a * (2 * (share + (share.round() - share).detach()) / n - 1)


def quantized_weight(p: Mapping[str, Tensor], layer: str) -> Tensor:
    weight, alpha = p[f"{layer}.weight"], p[f"{layer}.weight_quantizer.alpha"]
    if layer == "fc":
        return on_grid(weight, alpha, EDGE)
    normalised = (weight - weight.mean().detach()) / weight.std().detach()
    return on_grid(normalised, alpha, EDGE) if layer == "stem" else on_odd_grid(normalised, alpha)


def logits_of(
    p: Mapping[str, Tensor], w: Mapping[str, Tensor], x: Tensor, seen: Callable[[str, Tensor], None]
) -> Tensor:
    quantizers = [
        name.removesuffix(".alpha") for name in p if name.startswith("quantizers.") and "alpha" in name
    ]

    def normed(x: Tensor, name: str) -> Tensor:
        seen(name, x.detach())
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        gain, shift = (p[f"{name}.{kind}"].reshape(1, -1, 1, 1) for kind in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * gain + shift

    def quantized(x: Tensor, index: int, grid: Grid) -> Tensor:
        return on_grid(x, p[f"{quantizers[index]}.alpha"], grid, p.get(f"{quantizers[index]}.beta"))

    x = normed(F.conv2d(x, w["stem"]), "stem_bn")
    x = normed(F.conv2d(quantized(x, 0, LOW), w["expand"]), "expand_bn").clamp(0, 6)
    x = normed(F.conv2d(quantized(x, 1, LOW), w["depthwise"], padding=1, groups=6), "depthwise_bn").clamp(
        0, 6
    )
    x = normed(F.conv2d(quantized(x, 2, LOW), w["project"]), "project_bn").mean((2, 3))
    return quantized(x, 3, Grid(0, 127, unit=127)) @ w["fc"].T + p["fc.bias"]


class Reference:
    """Case 3 with SGD; the loss is the labels' and the teacher's cross entropy, in both passes."""

    def __init__(self, network: nn.Module, tau: int) -> None:
        self.values = {name: value.detach().clone() for name, value in network.named_parameters()}
        self.statistics = {
            name: value.clone() for name, value in network.named_buffers() if "running" in name
        }
        self.momenta = {name: torch.zeros_like(value) for name, value in self.values.items()}
        self.tau, self.t = tau, 0

    def step(self, images: Tensor, labels: Tensor) -> None:
        g, of_q = self._gradients(images, labels, {}, self._follow)
        flat = torch.cat([x.reshape(-1) for x in g.values()])
        if self.t % self.tau == 0:
            length = torch.cat([x.reshape(-1) for x in of_q.values()]).norm()
            epsilon = {name: RHO * x / (length + 1e-12) for name, x in of_q.items()}
            second, _ = self._gradients(images, labels, epsilon, lambda _name, _x: None)
            g_s = torch.cat([x.reshape(-1) for x in second.values()])
            self.g_v = g_s - (g_s @ flat) / (flat @ flat) * flat
        else:
            g_s = flat + BETA * flat.norm() * self.g_v / self.g_v.norm()
        parts = torch.split(g_s + flat, [x.numel() for x in g.values()])
        for (name, value), part in zip(self.values.items(), parts, strict=True):
            decay = DECAY * value if name.removesuffix(".weight") in LAYERS else 0.0
            self.momenta[name] = 0.9 * self.momenta[name] + part.reshape(value.shape) + decay
            self.values[name] = value - RATE * self.momenta[name]
        self.t += 1

    def _follow(self, norm: str, x: Tensor) -> None:
        for kind, found in (("mean", x.mean((0, 2, 3))), ("var", x.var((0, 2, 3), unbiased=True))):
            name = f"{norm}.running_{kind}"
            self.statistics[name] = 0.9 * self.statistics[name] + 0.1 * found

    def _gradients(
        self,
        images: Tensor,
        labels: Tensor,
        epsilon: Mapping[str, Tensor],
        seen: Callable[[str, Tensor], None],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        leaves = {name: value.clone().requires_grad_() for name, value in self.values.items()}
        q = {layer: quantized_weight(leaves, layer) for layer in LAYERS}
        w = {layer: value + epsilon.get(layer, 0.0) for layer, value in q.items()}
        logs = logits_of(leaves, w, images, seen).log_softmax(1)
        hard = -logs[torch.arange(len(labels)), labels].mean()
        soft = -(TEACHER(images).softmax(1) * logs).sum(1).mean()
        found = torch.autograd.grad(hard + soft, [*leaves.values(), *q.values()])
        of_leaves = dict(zip(leaves, found, strict=False))
        return of_leaves, dict(zip(LAYERS, found[len(leaves) :], strict=True))


@pytest.mark.parametrize("tau", [1, 2])
def test_three_taught_steps_move_weights_offsets_and_statistics_as_the_reference(tau: int) -> None:
    network = make_network()
    expected = Reference(network, tau)
    assert len([name for name in expected.values if name.endswith(".beta")]) == 2
    optimizer = build_optimizer(network, Sgd(kind="sgd", momentum=0.9, weight_decay=DECAY))
    set_learning_rate(optimizer, RATE)
    objective = Objective(network, F.cross_entropy, distillation=Distillation(TEACHER))
    efficient = EfficientTraining(tau=tau, beta=BETA) if tau > 1 else None
    step = build_step(objective, optimizer, Saq(kind="saq", rho=RHO, efficient=efficient))
    for images, labels in zip(IMAGES, LABELS, strict=True):
        step.step(images, labels)
        expected.step(images, labels)
        found = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        for name, value in {**expected.values, **expected.statistics}.items():
            message = partial("{}: {}".format, name)
            torch.testing.assert_close(found[name].detach(), value, rtol=1e-8, atol=1e-11, msg=message)
