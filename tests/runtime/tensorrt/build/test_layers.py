"""Lists of engine layers, as a build log and as the inspector of TensorRT 10 and 11 write them."""

import json
from typing import Any

import pytest

from saq_qat.errors import EngineError
from saq_qat_runtime.tensorrt.build.layers import layers_of_inspector, layers_of_log, read_layers

CODES = "Dimensions: [-1,4,8,8], Datatype: Int8, Format: (NHWC) Channel major format"
SCALES = "Dimensions: [1], Datatype: Float, Format: (Linear) Row major linear format"
EMPTY_LINE = (
    "Name: shapes_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , "
    "StreamId: 0, Metadata: "
)
CONV_LINE = (
    f"Name: stem, [a]: b_1, LayerType: correlation, Inputs: [ {{ Name: image, {CODES} }}], "
    f"Constants: [ {{ Name: w, {CODES} }}, {{ Name: s, {SCALES} }}], Outputs: [ {{ Name: y, {SCALES} }}], "
    "TacticName: t, StreamId: 0, Metadata: [ONNX Layer: stem, [a]: b][ONNX Layer: image.dequantize]"
)
LOG = f"Layers:\n{EMPTY_LINE}\n{CONV_LINE}\n\nI/O Tensors:\n Name: image, IOMode: Input, DataType: Float\n"


def cask(datatypes: dict[str, str]) -> dict[str, Any]:
    """A convolution fused with a sum, as the inspector lists it."""
    tensors = [{"Name": "x", "Dimensions": [8, 64, 56, 56], **datatypes}]
    return {
        "Name": "conv2 + add + relu",
        "LayerType": "CaskConvolution",
        "Inputs": [*tensors, {"Name": "shortcut", "Dimensions": [8, 64, 56, 56], **datatypes}],
        "Outputs": tensors,
        "ParameterType": "Convolution",
        "Weights": {"Type": "Int8", "Count": 36864},
        "Bias": {"Type": "Float", "Count": 64},
        "TacticName": "some_kernel",
        "Metadata": "[ONNX Layer: conv2]\u001e[ONNX Layer: add]\u001e[ONNX Layer: relu]",
    }


def test_a_log_gives_types_and_origin_of_each_layer_whatever_its_name() -> None:
    shapes, stem = layers_of_log(LOG)
    assert (shapes.kind, shapes.inputs, shapes.constants) == ("shape_call", (), ())
    assert (stem.name, stem.kind) == ("stem, [a]: b_1", "correlation")
    assert (stem.inputs, stem.constants) == (("Int8",), ("Int8", "Float"))
    assert stem.comes_from("stem, [a]: b")
    assert not stem.comes_from("stem")
    assert read_layers("build log", LOG).layers == (shapes, stem)


def test_nothing_is_believed_of_a_line_in_another_form() -> None:
    (layer,) = layers_of_log("Name: conv1, Type: new form [ONNX Layer: conv1] Datatype: Int8")
    assert (layer.kind, layer.inputs, layer.constants) == ("unknown", (), ())
    assert layer.comes_from("conv1")


@pytest.mark.parametrize(
    ("ends", "datatypes"),
    [
        ({"Bindings": ["x", "y"]}, {"Format/Datatype": "Thirty-two wide channel vectorized Int8 format"}),
        ({"Bindings": ["x", "y"]}, {"Format/Datatype": "Row major INT8 format"}),
        (
            {"I/O Tensors": [{"Name": "x"}]},
            {"Format": "Thirty-two wide channel vectorized", "Datatype": "Int8"},
        ),
    ],
    ids=["10.x", "10.x upper case", "11.x"],
)
def test_the_inspector_of_both_major_versions_is_understood(
    ends: dict[str, Any], datatypes: dict[str, str]
) -> None:
    (layer,) = layers_of_inspector(json.dumps({"Layers": [cask(datatypes)], **ends}))
    assert (layer.kind, layer.inputs, layer.constants) == ("CaskConvolution", ("Int8", "Int8"), ("Int8",))
    assert [node for node in ("conv", "conv2", "add", "relu") if layer.comes_from(node)] == [
        "conv2",
        "add",
        "relu",
    ]


def test_float_formats_of_the_inspector_stay_what_they_are() -> None:
    (layer,) = layers_of_inspector(
        json.dumps({"Layers": [cask({"Format/Datatype": "Row major linear FP32"})]})
    )
    assert layer.inputs == ("Row major linear FP32",) * 2


def test_layers_of_myelin_list_their_weights_among_constants() -> None:
    record = {
        "Name": "fc",
        "LayerType": "gemm",
        "Inputs": [{"Datatype": "Int8"}],
        "Constants": [{"Datatype": "Int8"}, {"Datatype": "Float"}],
        "Metadata": "[ONNX Layer: fc]",
    }
    (layer,) = layers_of_inspector(json.dumps({"Layers": [record]}))
    assert layer.constants == ("Int8", "Float")


def test_a_layer_of_which_only_the_name_is_given_has_no_types() -> None:
    (layer,) = layers_of_inspector(json.dumps({"Layers": ["conv1 + relu1"]}))
    assert (layer.name, layer.kind, layer.inputs) == ("conv1 + relu1", "unknown", ())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Bindings": []}'])
def test_what_is_no_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="gave no list of layers"):
        read_layers("engine inspector", text)
