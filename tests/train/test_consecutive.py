"""The angle between gradients of consecutive steps, and for how long a gradient is held."""

import weakref

import numpy as np
import torch
from torch import Tensor, nn

from saq_qat.train.consecutive import ConsecutiveGradients
from saq_qat.train.reporting import is_logged


def with_gradients(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in shapes]


def new_gradients(parameters: list[nn.Parameter], seed: int) -> np.typing.NDArray[np.float64]:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.cat([gradient.reshape(-1) for gradient in gradients]).double().numpy()


def test_the_angle_is_numpys_of_the_whole_gradients() -> None:
    parameters = with_gradients((3, 4), (5,))
    between = ConsecutiveGradients(parameters)
    a = new_gradients(parameters, 1)
    assert between.after_step(finite=True, logged=True, next_logged=True) is None
    b = new_gradients(parameters, 2)
    found = between.after_step(finite=True, logged=True, next_logged=True)
    assert found is not None
    assert np.isclose(found, a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-5)


def test_a_skipped_step_has_no_angle_and_neither_has_the_next() -> None:
    parameters = with_gradients((4,))
    between = ConsecutiveGradients(parameters)
    new_gradients(parameters, 1)
    between.after_step(finite=True, logged=True, next_logged=True)
    assert between.after_step(finite=False, logged=True, next_logged=True) is None
    new_gradients(parameters, 2)
    assert between.after_step(finite=True, logged=True, next_logged=True) is None


def test_a_gradient_is_held_only_until_the_line_it_is_for() -> None:
    parameters = with_gradients((4,))
    between = ConsecutiveGradients(parameters)

    def held_after_the_next(*, next_logged: bool) -> bool:
        new_gradients(parameters, 1)
        gradient = parameters[0].grad
        assert isinstance(gradient, Tensor)
        alive = weakref.ref(gradient)
        between.after_step(finite=True, logged=False, next_logged=next_logged)
        del gradient
        parameters[0].grad = None
        return alive() is not None

    assert not held_after_the_next(next_logged=False)
    assert held_after_the_next(next_logged=True)


def test_about_twenty_lines_an_epoch_and_always_the_last() -> None:
    assert [batch for batch in range(1, 8) if is_logged(batch, 7)] == list(range(1, 8))
    lines = [batch for batch in range(1, 392) if is_logged(batch, 391)]
    assert len(lines) == 21 and lines[-1] == 391
