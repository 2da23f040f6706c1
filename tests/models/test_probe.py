"""What a network makes of the recipe's images is known before anything is trained."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import googlenet, squeezenet1_1

from saq_qat.errors import RecipeError
from saq_qat.models import check_takes_images


class Pools(nn.Module):
    """Takes images from 32 pixels on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.MaxPool2d(8), nn.Dropout())
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


class Sized(nn.Module):
    """Takes images of 224 pixels alone, as a network of fixed positions does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 224:
            raise AssertionError(f"Input width ({x.shape[-1]}) doesn't match model (224).")
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


def test_a_network_that_takes_the_images_is_left_as_it_was() -> None:
    network = Pools()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    check_takes_images(network, 32, 5, "own:Pools")
    assert network.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_images_too_small_name_the_layer_and_the_nearest_size_that_fits() -> None:
    with pytest.raises(
        RecipeError,
        match=r"data\.image_size must be a size that the network takes; own:Pools refuses images "
        r"\(N, 3, 8, 8\) in body\.2 \(MaxPool2d\): .*too small\. It takes data\.image_size: 32;",
    ):
        check_takes_images(Pools(), 8, 5, "own:Pools")


def test_a_fixed_size_is_found_and_the_argument_that_sets_it_named() -> None:
    with pytest.raises(RecipeError, match=r"match model \(224\)\. It takes data\.image_size: 224;.*img_size"):
        check_takes_images(Sized(), 32, 5, "own:Sized")


def test_a_network_that_takes_no_size_is_told_to_be_tried_alone() -> None:
    with pytest.raises(RecipeError, match=r"takes none of 32 to 512 either: it must take images of 3"):
        check_takes_images(nn.Conv2d(1, 5, 3), 32, 5, "own:grey")


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Conv2d(3, 5, 1), r"a tensor \(2, 5, 32, 32\) in evaluation.*aux_logits: false"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)),
            r"a tensor \(2, 4\) in evaluation.*Its head must have 5 outputs",
        ),
        (
            googlenet(num_classes=5, init_weights=False),
            r"GoogLeNetOutputs of 3 in training.*aux_logits: false",
        ),
    ],
    ids=["image", "classes", "auxiliary"],
)
def test_anything_but_logits_is_refused(network: nn.Module, found: str) -> None:
    with pytest.raises(RecipeError, match=rf"gives one tensor of logits.*own:network gives {found}"):
        check_takes_images(network, 32, 5, "own:network")


def test_a_cnn_of_torchvision_says_where_an_image_becomes_too_small() -> None:
    with pytest.raises(RecipeError, match=r"in features\.5 \(MaxPool2d\)"):
        check_takes_images(squeezenet1_1(num_classes=5), 8, 5, "torchvision.models:squeezenet1_1")
