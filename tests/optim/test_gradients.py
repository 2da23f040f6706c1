import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saq_qat.optim.gradients import (
    GradientSum,
    along_vertical,
    cosine,
    flat_norm,
    inner_product,
    laid_out_as,
    vertical_component,
)

SHAPES = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4)


def vectors(shapes: list[tuple[int, ...]], seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    draw = [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(2)]
    return draw[0], draw[1]


def flat(vector: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in vector])


@given(SHAPES, st.integers(0, 2**31))
@settings(deadline=None)
def test_lists_of_tensors_behave_as_the_flat_vector(shapes: list[tuple[int, ...]], seed: int) -> None:
    a, b = vectors(shapes, seed)
    torch.testing.assert_close(inner_product(a, b), flat(a) @ flat(b))
    torch.testing.assert_close(flat_norm(a), flat(a).norm())
    torch.testing.assert_close(cosine(a, b), torch.cosine_similarity(flat(a), flat(b), dim=0))


@given(SHAPES, st.integers(0, 2**31))
@settings(deadline=None)
def test_vertical_component_is_orthogonal_and_completes_the_projection(
    shapes: list[tuple[int, ...]], seed: int
) -> None:
    g_s, g = vectors(shapes, seed)
    g_v = vertical_component(g_s, g)
    assert abs(inner_product(g_v, g).item()) <= 1e-10 * (flat_norm(g) * flat_norm(g_s)).item()
    parallel = flat(g_s) - flat(g_v)
    torch.testing.assert_close(parallel, flat(g) * (flat(g_s) @ flat(g)) / (flat(g) @ flat(g)))


def test_vertical_component_is_zero_rather_than_noise_where_g_s_is_parallel_to_g() -> None:
    g = [torch.randn(50), torch.randn(())]
    g_s = [2.0 * tensor.double() for tensor in g]
    assert not flat(vertical_component(g_s, [tensor.double() for tensor in g])).any()


def test_vertical_component_of_a_zero_gradient_is_zero() -> None:
    assert not flat(vertical_component([torch.ones(3)], [torch.zeros(3)])).any()


@pytest.mark.parametrize("g_v", [torch.zeros(3), torch.ones(3)])
def test_reused_direction_has_length_beta_times_g_or_none(g_v: Tensor) -> None:
    added = along_vertical([torch.tensor([3.0, 4.0, 0.0])], [g_v], beta=0.7)
    assert flat_norm(added).item() == pytest.approx(3.5 if g_v.any() else 0.0)


def test_gradient_sums_do_not_mix_and_hold_the_first_as_it_is() -> None:
    first, second = GradientSum(), GradientSum()
    held = [torch.ones(2), torch.zeros(())]
    first.add(held)
    for _ in range(2):
        first.add([torch.ones(2), torch.zeros(())])
        second.add([torch.full((2,), 5.0), torch.ones(())])
    assert first.mean(3)[0] is held[0] and held[0].tolist() == [1.0, 1.0]
    assert [tensor.tolist() for tensor in second.mean(2)] == [[5.0, 5.0], 1.0]
    assert second.mean(1)[0].tolist() == [5.0, 5.0]


def test_gradients_are_laid_out_as_their_inputs_and_share_no_memory() -> None:
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    contiguous, shared = torch.randn(2, 3, 4, 5), torch.randn(3)
    repeated = torch.ones(()).expand(7)
    found = laid_out_as(
        [images, torch.ones(3), torch.ones(3), torch.ones(7)], [contiguous, shared, shared, repeated]
    )
    assert found[0].is_contiguous(memory_format=torch.channels_last) and torch.equal(found[0], contiguous)
    assert found[1] is shared and found[2] is not shared and torch.equal(found[2], shared)
    assert found[3].is_contiguous()
    torch._foreach_add_(found, 1.0)
    assert found[3].tolist() == [2.0] * 7
