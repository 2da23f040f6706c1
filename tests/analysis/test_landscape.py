"""Directions of a landscape, and losses along them beside networks whose weights were moved by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from saq_qat.analysis.landscape import filter_normalised, loss_line, loss_plane, steps_within
from saq_qat.analysis.surface import loss_surface
from saq_qat.errors import DataError, RecipeError
from tests.quant.networks import NoNorm, Residual, images, quantized

X, LABELS = images(6).double(), torch.tensor([0, 1, 2, 0, 2, 1])


def weights(seed: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in ((4, 3, 3, 3), (5, 4), (2, 1, 1, 1))]


@given(st.integers(0, 50), st.integers(0, 50))
def test_filters_are_as_long_as_the_networks_and_at_right_angles(network: int, seed: int) -> None:
    centres = weights(network)
    first, second = filter_normalised(centres, 2, seed)
    for centre, one, other in zip(centres, first, second, strict=True):
        for row in range(len(centre)):
            assert one[row].norm() == pytest.approx(float(centre[row].norm()), rel=1e-5)
            assert other[row].norm() == pytest.approx(float(centre[row].norm()), rel=1e-5)
            if centre[row].numel() > 1:
                assert abs((one[row] * other[row]).sum()) < 1e-5 * centre[row].norm() ** 2


def test_networks_of_one_shape_are_moved_the_same_way() -> None:
    ours, theirs = weights(1), weights(2, scale=7.0)
    (one,), (other,) = filter_normalised(ours, 1, seed=3), filter_normalised(theirs, 1, seed=3)
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(F.normalize(a.flatten(1)), F.normalize(b.flatten(1)), atol=1e-6)
    assert not torch.equal(filter_normalised(ours, 1, seed=4)[0][0], one[0])


def test_a_filter_of_zeros_stays_where_it_is() -> None:
    centre = weights(0)[0]
    centre[1] = 0
    ((direction, *_),) = filter_normalised([centre], 1, seed=0)
    assert not direction[1].any() and direction[0].any()


def test_losses_are_those_of_a_network_with_moved_weights() -> None:
    network = NoNorm().double()
    with loss_surface(network, [(X[:1], LABELS[:1]), (X[1:], LABELS[1:])]) as surface:
        line = loss_line(surface, steps_within(0.5, 5), seed=2)
        plane = loss_plane(surface, steps_within(0.5, 3), seed=2)
        across, up = filter_normalised(surface.centres, 2, seed=2)

    def loss_by_hand(a: float, b: float) -> float:
        other = NoNorm().double()
        other.load_state_dict(network.state_dict())
        with torch.no_grad():
            moved = (parameter for name, parameter in other.named_parameters() if name.endswith("weight"))
            for weight, one, two in zip(moved, across, up, strict=True):
                weight.add_(a * one + b * two)
            return float(F.cross_entropy(other(X), LABELS))

    assert line.losses == pytest.approx([loss_by_hand(a, 0) for a in line.steps], rel=1e-12)
    assert line.losses[2] == pytest.approx(float(F.cross_entropy(network(X), LABELS).detach()), rel=1e-12)
    for b, row in zip(plane.steps, plane.losses, strict=True):
        assert row == pytest.approx([loss_by_hand(a, b) for a in plane.steps], rel=1e-12)


def test_quantized_weights_are_moved_off_their_grid_and_not_requantized() -> None:
    network, _ = quantized(Residual())
    network.double()
    tiny = 1e-6  # far less than a step of four bits
    with loss_surface(network, [(X, LABELS)]) as surface:
        line = loss_line(surface, (-tiny, 0.0, tiny))
    assert len(set(line.losses)) == 3
    assert line.losses[1] == pytest.approx(float(F.cross_entropy(network(X), LABELS).detach()), rel=1e-12)


def test_progress_counts_every_point() -> None:
    seen: list[int] = []
    with loss_surface(NoNorm().double(), [(X, LABELS)]) as surface:
        loss_plane(surface, steps_within(1, 3), on_point=seen.append)
    assert seen == list(range(1, 10))


@given(st.floats(1e-3, 10), st.integers(1, 30))
def test_steps_are_symmetric_around_zero(reach: float, half: int) -> None:
    steps = steps_within(reach, 2 * half + 1)
    assert steps[half] == 0.0 and steps[-1] == reach
    assert [-step for step in reversed(steps)] == list(steps)


@pytest.mark.parametrize(("reach", "count"), [(1.0, 4), (1.0, 1), (0.0, 5), (float("nan"), 5)])
def test_steps_that_miss_the_network_are_refused(reach: float, count: int) -> None:
    with pytest.raises(RecipeError, match="Steps of a landscape"):
        steps_within(reach, count)


def test_a_network_without_weights_to_move_and_a_surface_without_images_are_refused() -> None:
    with pytest.raises(RecipeError, match="has none"), loss_surface(nn.Flatten(), []):
        pass
    with (
        loss_surface(NoNorm().double(), [(X, LABELS)]) as surface,
        pytest.raises(DataError, match="no images"),
    ):
        loss_line(replace(surface, batches=[]), (0.0,))
