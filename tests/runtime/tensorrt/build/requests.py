"""What a builder is asked for, wherever it runs."""

from saq_qat_runtime.tensorrt.build.exchange import Request

__all__ = ["REQUEST"]

REQUEST = Request(
    flavour="tensorrt",
    source="graph.onnx",
    precision="float32",
    batch=(1, 8, 32),
    workspace_mib=64,
    optimization_level=5,
    hardware_compatibility="none",
    version_compatible=False,
    timing_cache=None,
)
