"""The second family: Vision Transformers and MobileNetV2 with offsets, and how a case of them is proved."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from saq_qat.errors import LegalityError
from saq_qat.models.build import build_model
from saq_qat.quant.deploy.kernels import LOGITS, is_integer_product
from saq_qat.quant.network import quantize
from saq_qat.quant.plan.legality import judge
from saq_qat.quant.plan.plan import Finding
from saq_qat.recipe.schema import ActivationQuantizer, Model, Override, Quant, TensorRt, WeightQuantizer
from saq_qat_export.graph.attention import Attention
from saq_qat_export.graph.onnx_graph import OnnxGraph, export_tensorrt
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.tensorrt import TensorRtGraphs, tensorrt_comparisons
from tests.export.networks import CLASSES, Lowered, lower, policy, smooth_images
from tests.export.proof.test_tensorrt_proof import in_float16


def _tiny_transformer() -> nn.Module:
    return build_model(Model(name="vit_micro", arguments={"depth": 1, "img_size": 16}), CLASSES)


def _tiny_mobilenet() -> nn.Module:
    """Three bottlenecks: without expansion, with a stride, with a residual sum."""
    blocks = [[1, 8, 1, 1], [6, 8, 2, 2]]
    network: nn.Module = mobilenet_v2(num_classes=CLASSES, inverted_residual_setting=blocks)
    return network


def _built_in(name: str) -> Callable[[], nn.Module]:
    return lambda: build_model(Model(name=name), CLASSES)


@dataclass(frozen=True)
class Network:
    """A float network, and the side of the images it is proved on."""

    name: str
    build: Callable[[], nn.Module]
    side: int


TINY = (Network("vit-tiny", _tiny_transformer, 16), Network("mobilenet-tiny", _tiny_mobilenet, 16))
LARGE = (
    Network("vit_micro", _built_in("vit_micro"), 32),
    Network("vit_s16", _built_in("vit_s16"), 224),
    Network("mobilenet_v2", _built_in("mobilenet_v2"), 224),
)


@dataclass(frozen=True)
class Case:
    """One network at W and A ``bits``, both of one kind."""

    network: Network
    bits: int
    kind: str
    offset: str
    settings: tuple[tuple[str, object], ...] = ()
    targets: tuple[str, ...] = ("onnxruntime",)

    def __str__(self) -> str:
        words = [self.network.name, f"W{self.bits}A{self.bits}", self.kind, self.offset]
        words += [f"{name}={value}" for name, value in self.settings if name != "overrides"]
        return "-".join([*words, *(target for target in self.targets if target != "onnxruntime")])

    def lower(self, images: Tensor) -> Lowered:
        """On images to calibrate with."""
        return lower(self.model(), self.policy(), images, targets=self.targets)

    def model(self) -> nn.Module:
        if self.network.name.startswith("vit"):
            pytest.importorskip("timm", reason="needs the extra vit")
        torch.manual_seed(0)
        return self.network.build()

    def policy(self) -> Quant:
        activation = {"bits": self.bits, "kind": self.kind, "offset": self.offset}
        return policy(
            self.bits,
            self.bits,
            weight=WeightQuantizer.model_validate({"bits": self.bits, "kind": self.kind}),
            activation=ActivationQuantizer.model_validate(activation),
            **dict(self.settings),
        )


@cache
def lowered(case: Case) -> Lowered:
    """On smooth images; made once for all tests of a process."""
    return case.lower(smooth_images(8, case.network.side))


def fixed(case: Case) -> Case:
    """For TensorRT: step sizes count to 255 in the 8 bits of the last layer's input, clip levels to 127."""
    last = "head" if case.network.name.startswith("vit") else "classifier.*"
    override = Override(match=last, activation_kind="saq")
    if case.kind != "lsq":
        return case
    return replace(case, settings=(*case.settings, ("overrides", (override,))))


def assert_exact(case: Case, found: Lowered, batches: Iterable[Tensor]) -> None:
    """Codes and floats of integer kernels are equal, logits among them; others part at ties alone."""
    batches = list(batches)
    _, channels, height, width = batches[0].shape
    ties = tie_images(found.view, (channels, height, width))
    reference, double, single = code_comparisons(found.view, found.graph, batches, ties)
    for comparison in (reference, double, single):
        _show(case, comparison)
        assert comparison.passed, comparison.detail
    assert reference.mismatches == double.mismatches == 0
    assert [t.compared for t in reference.tensors if t.name == LOGITS]
    assert {t.name for t in reference.tensors} == {*found.graph.code_tensors, *found.graph.float_results}


def assert_exact_for_tensorrt(case: Case, found: Lowered, batches: Iterable[Tensor]) -> None:
    """The graphs for TensorRT, with attention in float and as int8, in float32 and float16."""
    batches = list(batches)
    _, channels, height, width = batches[0].shape
    shape = (channels, height, width)
    ties = tie_images(found.view, shape)
    for attention in _attentions(found):
        single = export_tensorrt(found.view, shape, TensorRt(attention=attention))
        graphs = TensorRtGraphs(single, _halved(case, single), attention)
        for comparison in tensorrt_comparisons(found.view, found.graph, graphs, batches, ties):
            _show(case, comparison, f"attention {attention}: ")
            # In float16 codes are counted; random networks of 8 bits come up to 2.3 %.
            assert comparison.mismatches <= (0 if comparison.hard else 0.03 * comparison.compared), (
                comparison.detail
            )
            assert comparison.passed or not comparison.hard, comparison.detail


def _halved(case: Case, graph: OnnxGraph) -> OnnxGraph | None:
    """In float16, if that can hold the scale of the smallest probabilities."""
    try:
        return in_float16(graph)
    except LegalityError as error:
        assert case.bits == 8 and "softmax.scale: float16 holds scales" in str(error)
        print(f"{case}: {error}")
        return None


def _attentions(found: Lowered) -> tuple[Attention, ...]:
    products = [n for n in found.view.graph.nodes if is_integer_product(found.view, n) and len(n.args) == 2]
    return ("float", "int8") if products else ("float",)


def refusals(case: Case) -> list[Finding]:
    """Why TensorRT could not run what would be trained."""
    network, plan = quantize(case.model(), case.policy(), case.targets)
    return list(judge(plan, network, ("onnxruntime", "tensorrt")).errors)


def _show(case: Case, comparison: Comparison, where: str = "") -> None:
    print(
        f"{case}: {where}{comparison.name}: "
        f"{comparison.detail or f'{comparison.mismatches} of {comparison.compared:,}'}"
    )
