"""A channel that deployment turns into a constant is counted, named and held against the recipe."""

import copy
from typing import cast

import torch
from torch import nn

from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.schema import Deploy, Thresholds
from saq_qat_export.bundle.records import layer_records
from saq_qat_export.proof.constant_channels import constant_comparison, constant_count
from saq_qat_export.proof.function import compare_function
from tests.export.networks import SIDE, small, smooth_images


def test_a_network_as_trained_has_none_and_none_is_allowed() -> None:
    comparison = constant_comparison(small().view, Thresholds().max_constant_channels)
    assert (comparison.passed, comparison.hard, comparison.mismatches, comparison.detail) == (
        True,
        True,
        0,
        "",
    )
    assert comparison.compared == 8 + 12 + 12 + 12 + 12 + 10


def test_a_bias_beyond_its_integers_is_named_with_its_layer_and_channel() -> None:
    found = small()
    network = copy.deepcopy(found.network)
    cast(nn.BatchNorm2d, network.get_submodule("shortcut.1")).bias.data[3] = 1e9
    view = deploy_view(network, Deploy())
    comparison = constant_comparison(view, 0)
    assert (comparison.passed, comparison.mismatches) == (False, 1)
    assert "shortcut.0 channel 3: biases above 2^30 of their steps" in comparison.detail
    assert constant_comparison(view, 1).passed
    layer = cast(IntegerLayer, view.get_submodule("shortcut.0"))
    assert not layer.weight[3].any() and constant_count(layer) == 1
    counts = {record.name: record.constant_channels for record in layer_records(found.plan, view)}
    assert counts == {name: int(name == "shortcut.0") for name in counts}


def test_an_allowed_constant_is_no_difference_of_the_function() -> None:
    network = copy.deepcopy(small().network)
    cast(nn.BatchNorm2d, network.get_submodule("shortcut.1")).bias.data[3] = 1e9
    images = smooth_images(2, SIDE, seed=1)
    compared = compare_function(network, deploy_view(network, Deploy()), [images])
    assert [tensor.name for tensor in compared if tensor.mismatches] == []


def test_a_channel_of_zero_gain_is_no_constant() -> None:
    """Its weights were zero before its bias was rounded."""
    network = copy.deepcopy(small().network)
    cast(nn.BatchNorm2d, network.get_submodule("shortcut.1")).weight.data[3] = 0
    view = deploy_view(network, Deploy())
    assert constant_comparison(view, 0).passed
    assert torch.count_nonzero(cast(IntegerLayer, view.get_submodule("shortcut.0")).weight[3]) == 0


def test_a_channel_that_training_switched_off_is_counted_and_stops_nothing() -> None:
    found = small()
    network = copy.deepcopy(found.network)
    norm = cast(nn.BatchNorm2d, network.get_submodule("shortcut.1"))
    norm.weight.data[3], norm.bias.data[3] = 1e-8, 0.5
    view = deploy_view(network, Deploy())
    comparison = constant_comparison(view, 0)
    assert comparison.passed and comparison.mismatches == 0
    assert comparison.detail == "1 of almost no gain became constants"
    assert constant_count(cast(IntegerLayer, view.get_submodule("shortcut.0"))) == 1
