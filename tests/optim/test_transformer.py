"""SAQ with AdamW on a Vision Transformer: three steps against ``attention_reference``, and what decays."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from saq_qat.models.vit import vit_micro
from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.passes import Objective
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.trace.inputs import activation_quantizers
from saq_qat.recipe.schema import ActivationQuantizer, AdamW, EfficientTraining, Quant, Saq, WeightQuantizer
from tests.optim.attention_reference import LAYERS, Reference

pytest.importorskip("timm", reason="needs the extra vit")

GENERATOR = torch.Generator().manual_seed(5)
IMAGES = torch.randn(3, 6, 3, 8, 8, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(5, (3, 6), generator=GENERATOR)
SCOPES: dict[str, tuple[Any, ...]] = {
    "weights": ("weight",),
    "and biases": ("weight", "bias"),
    "and norms": ("weight", "bias", "norm"),
}


def make_network(*, integer_image: bool = False) -> fx.GraphModule:
    """Two blocks of width 8 with two heads, LSQ+ W4A4; every parameter is random, in float64."""
    torch.manual_seed(2)
    model = vit_micro(5, img_size=8, embed_dim=8, num_heads=2, depth=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter) * 0.4
            parameter.copy_(1 + noise if "norm" in name and name.endswith("weight") else noise)
    quant = Quant(
        weight=WeightQuantizer(kind="lsq", bits=4, initialise="least_squares"),
        activation=ActivationQuantizer(kind="lsq", bits=4, offset="bounded", initialise="least_squares"),
        quantize_image=integer_image,
        placement="deploy" if integer_image else "paper",
    )
    network, _ = quantize(model, quant, ("onnxruntime",))
    calibrate(network, [IMAGES[0].float()])
    return network.double().train()


def further(network: fx.GraphModule, layers: list[str], scope: str) -> tuple[str, ...]:
    """Names of what the ball holds beside quantized weights."""
    names = [name for name, _ in network.named_parameters()]
    biases = [f"{layer}.bias" for layer in layers]
    norms = [name for name in names if "norm" in name and not name.startswith("quantizers")]
    return tuple({"weights": [], "and biases": biases, "and norms": [*biases, *norms]}[scope])


def assert_three_steps_equal(network: fx.GraphModule, expected: Reference, method: Saq) -> None:
    optimizer = build_optimizer(network, AdamW(kind="adamw", weight_decay=expected.decay))
    set_learning_rate(optimizer, expected.lr)
    step = build_step(Objective(network, F.cross_entropy), optimizer, method)
    for images, labels in zip(IMAGES, LABELS, strict=True):
        found = step.step(images, labels)
        losses = [loss for loss in (found.loss, found.perturbed_loss) if loss is not None]
        assert losses == pytest.approx(expected.losses(images, labels), rel=1e-9)
        for name, value in network.named_parameters():
            message = partial("{}: {}".format, name)
            wanted = expected.values[name]
            torch.testing.assert_close(value.detach(), wanted, rtol=1e-8, atol=1e-10, msg=message)


def start(network: fx.GraphModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


@pytest.mark.parametrize("tau", [1, 2])
@pytest.mark.parametrize("case", [1, 2, 3])
def test_three_steps_of_every_case_equal_the_reference(case: Any, tau: int) -> None:
    network = make_network()
    efficient = EfficientTraining(tau=tau) if tau > 1 else None
    expected = Reference(start(network), case=case, tau=tau)
    assert_three_steps_equal(network, expected, Saq(kind="saq", rho=0.3, case=case, efficient=efficient))


@pytest.mark.parametrize("scope", SCOPES)
def test_the_ball_holds_weights_and_on_request_biases_and_layer_norms(scope: str) -> None:
    network = make_network()
    moved = further(network, LAYERS, scope)
    assert len(moved) == {"weights": 0, "and biases": 14, "and norms": 24}[scope]
    expected = Reference(start(network), moved=moved)
    assert_three_steps_equal(network, expected, Saq(kind="saq", rho=0.3, perturb=SCOPES[scope]))


def test_a_step_size_below_its_floor_goes_on_from_the_floor() -> None:
    network = make_network()
    overshot = "blocks.0.mlp.fc1.weight_quantizer.alpha"
    network.get_parameter(overshot).data.fill_(-0.3)
    assert_three_steps_equal(network, Reference(start(network)), Saq(kind="saq", rho=0.3))
    assert abs(network.get_parameter(overshot).item()) < 0.01


def test_a_quantized_image_and_tokens_change_nothing_else() -> None:
    network = make_network(integer_image=True)
    expected = Reference(start(network), integer_image=True)
    assert_three_steps_equal(network, expected, Saq(kind="saq", rho=0.3))


def test_a_transformer_gets_the_quantizers_of_the_reference_and_no_other() -> None:
    names = list(activation_quantizers(make_network()))
    tensors = ("norm1", "attn_mul", "attn_k", "attn_v", "attn_softmax", "attn_matmul_1", "norm2", "mlp_act")
    assert names == [f"blocks_{block}_{tensor}" for block in (0, 1) for tensor in tensors] + ["getitem_1"]


@pytest.mark.parametrize("decay", ["weights", "all"])
def test_tokens_positions_norms_biases_and_steps_do_not_decay_unless_asked(decay: Any) -> None:
    network = make_network()
    optimizer = build_optimizer(network, AdamW(kind="adamw", weight_decay=0.1, decay=decay))
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    spared = {name for name, p in network.named_parameters() if id(p) not in decayed}
    steps = {name for name in spared if name.endswith((".alpha", ".beta"))}
    assert len(steps) == 14 + 17 + 2
    others = {"cls_token", "pos_embed"} | {n for n in spared if n.endswith(".bias") or "norm" in n} - steps
    assert spared == steps | (others if decay == "weights" else set())
    assert decay == "all" or len(others) == 2 + 14 + 10


def test_a_parameter_that_is_not_trained_is_not_moved_either() -> None:
    network = make_network()
    frozen = network.get_parameter("head.bias").requires_grad_(False)
    before = frozen.detach().clone()
    optimizer = build_optimizer(network, AdamW(kind="adamw"))
    set_learning_rate(optimizer, 0.01)
    method = Saq(kind="saq", rho=0.3, perturb=("weight", "bias"))
    result = build_step(Objective(network, F.cross_entropy), optimizer, method).step(IMAGES[0], LABELS[0])
    assert result.epsilon_norm == pytest.approx(0.3) and torch.equal(frozen, before)


def test_adamw_steps_are_no_longer_with_the_sum_of_both_gradients_than_with_their_mean() -> None:
    networks = [make_network() for _ in range(2)]
    for network, objective in zip(networks, ("sum", "mean"), strict=True):
        optimizer = build_optimizer(network, AdamW(kind="adamw"))
        set_learning_rate(optimizer, 0.002)
        for group in optimizer.param_groups:
            # Beside gradients of 1e-6 its own 1e-8 shows. Whether this network has any is chance: versions of
            # torch draw other weights from one seed.
            group["eps"] = 1e-30
        method = Saq.model_validate({"kind": "saq", "rho": 0.3, "objective": objective})
        step = build_step(Objective(network, F.cross_entropy), optimizer, method)
        for images, labels in zip(IMAGES, LABELS, strict=True):
            step.step(images, labels)
    for (name, a), b in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=partial("{}: {}".format, name))
