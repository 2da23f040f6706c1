import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saq_qat.errors import DataError
from saq_qat.train.distributed import Processes
from saq_qat.train.evaluate import evaluate

ONE = Processes(0, 1, torch.device("cpu"))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 8), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_accuracy_counts_every_image_once_whatever_the_batches(
    count: int, batch_size: int, classes: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    batches = zip(logits.split(batch_size), labels.split(batch_size), strict=True)  # type: ignore[no-untyped-call]  # torch gives it no types
    found = evaluate(nn.Identity(), batches, ONE)
    order = logits.argsort(dim=1, descending=True)
    right = order == labels[:, None]
    assert found.count == count
    assert found.top1 == pytest.approx(100 * right[:, 0].double().mean().item())
    assert found.top5 == pytest.approx(100 * right[:, :5].any(dim=1).double().mean().item())
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_uses_running_statistics_and_gives_the_mode_back(training: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3)).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(network, [(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))], ONE)
    assert network.training is training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_no_images_are_an_error_rather_than_a_division_by_zero() -> None:
    with pytest.raises(DataError, match="no validation images"):
        evaluate(nn.Identity(), [], ONE)
