"""Knowledge distillation: its loss and gradient, and that the teacher is asked once for all passes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.distillation import Distillation, soft_cross_entropy
from saq_qat.optim.passes import Objective
from saq_qat.optim.update import TrainingStep
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantLinear
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import EfficientTraining, Plain, Sam, Saq, Sgd

IMAGES = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 5
METHODS = (
    Plain(kind="plain"),
    Sam(kind="sam", rho=0.05),
    Saq(kind="saq", rho=0.3),
    Saq(kind="saq", rho=0.3, efficient=EfficientTraining(tau=2)),
)


class Teacher(nn.Module):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
        self.asked: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked.append(images)
        logits: Tensor = self.body(images)
        return logits


def make_student(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(dropout),
        Quantizer(activation_grid("saq", 4, signed=True), bits=4),
        QuantLinear(nn.Linear(48, 5), Quantizer(weight_grid("saq", 4), bits=4)),
    )


def make_step(
    network: nn.Module, method: Plain | Sam | Saq, teacher: Distillation, **options: Any
) -> TrainingStep:
    optimizer = build_optimizer(network, Sgd(kind="sgd", momentum=0.0))
    set_learning_rate(optimizer, 0.0)
    return build_step(Objective(network, F.cross_entropy, distillation=teacher, **options), optimizer, method)


@settings(max_examples=25)
@given(st.floats(0.25, 8.0), st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**31))
def test_the_soft_term_and_its_gradient_are_those_of_the_formula(
    temperature: float, images: int, classes: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher = 3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    logits = torch.randn(images, classes, generator=generator, dtype=torch.float64).requires_grad_()
    found = soft_cross_entropy(logits, teacher, temperature)
    (gradient,) = torch.autograd.grad(found, logits)

    q, p = (torch.exp(z / temperature) for z in (logits.detach(), teacher))
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    expected = sum(-p[i, k] * q[i, k].log() for i in range(images) for k in range(classes)) / images
    torch.testing.assert_close(found.detach(), temperature**2 * torch.as_tensor(expected))
    # d/dz of T^2 * CE(softmax(z / T)) is T (q - p), averaged over images.
    torch.testing.assert_close(gradient, temperature * (q - p) / images)


def test_labels_and_teacher_weigh_one_to_one_by_default_and_smoothing_is_of_the_labels() -> None:
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    of_teacher = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))
    hard = F.cross_entropy(logits, LABELS, label_smoothing=0.1)
    soft = -(of_teacher.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    both = Distillation(nn.Identity()).combined(hard, logits, of_teacher)
    torch.testing.assert_close(both, hard + soft)
    alone = Distillation(nn.Identity(), label_weight=0.0, weight=2.0).combined(hard, logits, of_teacher)
    torch.testing.assert_close(alone, 2 * soft)


@pytest.mark.parametrize("size", [None, 4, 2])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.kind)
def test_the_teacher_sees_each_image_once_a_step(method: Plain | Sam | Saq, size: int | None) -> None:
    teacher = Teacher()
    step = make_step(make_student(), method, Distillation(teacher), micro_batch_size=size)
    for number in (1, 2):
        step.step(IMAGES, LABELS)
        assert torch.equal(torch.cat(teacher.asked), IMAGES)
        assert len(teacher.asked) == 8 // (size or 8), number
        teacher.asked.clear()
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("method", METHODS[1:3], ids=lambda m: m.kind)
def test_both_passes_learn_from_the_same_answer(method: Sam | Saq, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    combined = Distillation.combined

    def watched(self: Distillation, label_loss: Tensor, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        seen.append(teacher_logits)
        return combined(self, label_loss, logits, teacher_logits)

    monkeypatch.setattr(Distillation, "combined", watched)
    teacher = Teacher()
    make_step(make_student(), method, Distillation(teacher)).step(IMAGES, LABELS)
    assert len(seen) == 2 and seen[0] is seen[1]
    torch.testing.assert_close(seen[0], teacher.body(IMAGES))


@pytest.mark.parametrize("size", [None, 4])
def test_a_step_s_gradient_is_that_of_the_whole_loss(size: int | None) -> None:
    distillation = Distillation(Teacher(), weight=0.7, label_weight=0.3, temperature=2.0)
    student, twin = make_student(), make_student()
    make_step(student, METHODS[0], distillation, micro_batch_size=size).step(IMAGES, LABELS)
    logits, of_teacher = twin(IMAGES), distillation.teacher.get_submodule("body")(IMAGES).detach()
    soft = -((of_teacher / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1).mean()
    torch.autograd.backward(0.3 * F.cross_entropy(logits, LABELS) + 0.7 * 4 * soft)
    for a, b in zip(student.parameters(), twin.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad)


def test_autocast_covers_the_teacher_and_losses_stay_in_float32() -> None:
    kinds: list[torch.dtype] = []
    teacher = Teacher()
    teacher.body[1].register_forward_hook(lambda _m, _i, output: kinds.append(output.dtype))
    student = make_student()
    result = make_step(student, METHODS[2], Distillation(teacher), precision="bfloat16").step(IMAGES, LABELS)
    assert result.finite and kinds == [torch.bfloat16]
    assert {p.grad.dtype for p in student.parameters() if p.grad is not None} == {torch.float32}
