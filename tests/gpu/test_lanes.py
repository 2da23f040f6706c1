"""The kit's step is the product's: the same batches leave the same weights and BatchNorm statistics."""

import copy
from collections.abc import Mapping
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saq_qat.data.batches import train_batches
from saq_qat.data.open import ImageData
from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate, trainable_parameters
from saq_qat.optim.passes import Objective
from saq_qat.optim.sam import SamStep
from saq_qat.optim.update import TrainingStep, Update
from saq_qat.recipe.schema import Plain, Saq
from tests.gpu.images import Epoch, as_image_data, random_splits
from tests.gpu.lanes import Lane, Method
from tests.gpu.networks import OPTIMIZER, Network, calibration_batches, starting_point

BATCH, STEPS, BITS, RATE, RHO = 16, 3, 2, 0.05, 1.6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> ImageData:
    return as_image_data(*random_splits(STEPS * BATCH, 10))


@pytest.fixture(scope="module")
def start(images: ImageData) -> Mapping[str, Tensor]:
    return starting_point(BITS, None, calibration_batches(images, 1, BATCH))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(BITS, None, CPU, compiled=False)


def product_step(network: Network, method: Method, share: float) -> TrainingStep:
    module = network.module
    optimizer = build_optimizer(module, OPTIMIZER)
    set_learning_rate(optimizer, RATE)
    objective = Objective(module, F.cross_entropy)
    if method == "sam":
        parameters = list(trainable_parameters(module).values())
        return SamStep(objective, parameters, Update(optimizer, parameters), rho=RHO)
    if method == "plain":
        return build_step(objective, optimizer, Plain(kind="plain"))
    method_of_share = Saq(kind="saq", rho=RHO, objective="mean" if share == 0.5 else "sum")
    return build_step(objective, optimizer, method_of_share)


def test_batches_are_the_products(images: ImageData) -> None:
    squares, labels = images.train.on_device(CPU), torch.from_numpy(images.train.labels)
    assert squares is not None
    made = Epoch(squares, labels, BATCH, seed=3, epoch=2).batches(1, STEPS - 1)
    expected = islice(train_batches(images, batch_size=BATCH, seed=3, epoch=2), 1, None)
    for own_images, own_labels, (theirs, their_labels) in zip(*made, expected, strict=True):
        assert torch.equal(own_images, theirs)
        assert torch.equal(own_labels, their_labels)


@pytest.mark.parametrize(("method", "share"), [("plain", 0.5), ("saq", 0.5), ("saq", 1.0), ("sam", 0.5)])
def test_a_run_is_the_products(
    network: Network, images: ImageData, start: Mapping[str, Tensor], method: Method, share: float
) -> None:
    lane = Lane(network, start, method, BATCH, CPU)
    lane.begin(start, rho=RHO, share=share)
    theirs = copy.deepcopy(network)
    theirs.module.load_state_dict(start)
    step = product_step(theirs, method, share)
    losses = 0.0
    for pictures, labels in train_batches(images, batch_size=BATCH, seed=1, epoch=0):
        lane.step(pictures, labels, torch.tensor(RATE))
        losses += step.step(pictures, labels).loss
    expected = theirs.module.state_dict()
    moved = 0
    for name, tensor in lane.state().items():
        assert torch.allclose(tensor.double(), expected[name].double(), rtol=1e-4, atol=1e-5), name
        moved += not torch.equal(tensor, start[name])
    assert moved > len(start) / 2
    assert float(lane.loss_sum) == pytest.approx(losses, rel=1e-4)


def test_two_runs_of_one_network_do_not_touch_each_other(
    network: Network, images: ImageData, start: Mapping[str, Tensor]
) -> None:
    batches = list(train_batches(images, batch_size=BATCH, seed=1, epoch=0))[:2]
    alone, first, second = (Lane(network, start, "plain", BATCH, CPU) for _ in range(3))
    for pictures, labels in batches:
        alone.step(pictures, labels, torch.tensor(RATE))
    for pictures, labels in batches:
        first.step(pictures, labels, torch.tensor(RATE))
        second.step(pictures, labels, torch.tensor(2 * RATE))
    assert all(torch.equal(tensor, first.state()[name]) for name, tensor in alone.state().items())
    assert not torch.equal(second.parameters[0], first.parameters[0])
