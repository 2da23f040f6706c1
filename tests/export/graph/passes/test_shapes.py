"""Files for ONNX Runtime say nothing of the sizes of intermediate values, files for TensorRT do."""

import onnx

from saq_qat_export.graph.onnx_graph import OUTPUT, export_tensorrt
from tests.export.networks import SIDE, small


def sized(model: onnx.ModelProto) -> set[str]:
    """Computed values whose shape the file states."""
    values = (*model.graph.value_info, *model.graph.output)
    return computed(model) & {v.name for v in values if v.type.tensor_type.HasField("shape")}


def computed(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output}


def test_the_output_alone_has_a_size() -> None:
    """Known sizes make ONNX Runtime plan its buffers at load time, which costs a transformer 6 %."""
    model = onnx.load_from_string(small().graph.content)
    assert sized(model) == {OUTPUT}


def test_what_is_compared_keeps_its_type() -> None:
    """Codes become graph outputs where they are compared, which need one."""
    model = onnx.load_from_string(small().graph.content)
    typed = {value.name for value in model.graph.value_info if value.type.tensor_type.elem_type}
    assert typed >= {*small().graph.code_tensors, *small().graph.float_results} - {OUTPUT}


def test_a_graph_for_tensorrt_keeps_its_shapes() -> None:
    model = onnx.load_from_string(export_tensorrt(small().view, (3, SIDE, SIDE)).content)
    assert sized(model) == computed(model)
