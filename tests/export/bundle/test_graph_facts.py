"""Offsets and float operations are read from the graph that ships, and are those of the deploy view."""

from functools import cache

import onnx
import pytest
import torch
from torch import nn

from saq_qat.quant.trace.inputs import activation_quantizers
from saq_qat.recipe.schema import ActivationQuantizer, Deploy
from saq_qat_export.bundle.graph_facts import GraphFacts, graph_facts
from saq_qat_export.bundle.records import tensor_records
from tests.export.networks import Lowered, lower, policy, smooth_images
from tests.quant.networks import Attention, Residual


@cache
def lowered(network: type[nn.Module], offset: str = "none", placement: str = "deploy") -> Lowered:
    torch.manual_seed(0)
    activation = ActivationQuantizer.model_validate({"bits": 4, "kind": "lsq", "offset": offset})
    quant = policy(4, 4, activation=activation, placement=placement)
    return lower(network(), quant, smooth_images(16, 8), Deploy())


def facts(found: Lowered) -> GraphFacts:
    return graph_facts(onnx.load_from_string(found.graph.content))


def test_a_transformers_float_operations_are_counted_without_unpacked_weights_and_offsets() -> None:
    operations = facts(lowered(Attention, "bounded")).float_operations
    assert operations == {"Add": 3, "LayerNormalization": 3, "Softmax": 1, "Gelu": 1}


def test_sums_and_averages_on_codes_are_not_float() -> None:
    assert facts(lowered(Residual)).float_operations == {}
    assert facts(lowered(Residual, placement="paper")).float_operations["Add"] == 1


@pytest.mark.parametrize("offset", ["bounded", "signed"])
def test_offsets_are_those_that_were_learned(offset: str) -> None:
    found = lowered(Attention, offset)
    learned = {
        name: quantizer.beta.item()
        for name, quantizer in activation_quantizers(found.network).items()
        if quantizer.beta is not None
    }
    records = {record.name: record.offset for record in tensor_records(found.view)}
    assert learned and {name: records[name] for name in learned} == pytest.approx(learned)
    assert all(records[name] is None for name in records.keys() - learned.keys())
