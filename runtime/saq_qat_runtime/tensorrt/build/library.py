"""What building an engine takes of TensorRT's Python API, the same in every version; for the type checker.

The building process imports this module: standard library only.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["BuilderLibrary"]


class BuilderLibrary(Protocol):
    """The module ``tensorrt`` or ``tensorrt_rtx``; an attribute of it that is not listed here is not used."""

    __version__: str
    Builder: "type[trt.Builder]"
    BuilderFlag: "type[trt.BuilderFlag]"
    DataType: "type[trt.DataType]"
    HardwareCompatibilityLevel: "type[trt.HardwareCompatibilityLevel]"
    ILogger: "type[trt.ILogger]"
    LayerInformationFormat: "type[trt.LayerInformationFormat]"
    MemoryPoolType: "type[trt.MemoryPoolType]"
    NetworkDefinitionCreationFlag: "type[trt.NetworkDefinitionCreationFlag]"
    OnnxParser: "type[trt.OnnxParser]"
    ProfilingVerbosity: "type[trt.ProfilingVerbosity]"
    Runtime: "type[trt.Runtime]"


if TYPE_CHECKING:
    _tensorrt_has_all_of_it: BuilderLibrary = trt
