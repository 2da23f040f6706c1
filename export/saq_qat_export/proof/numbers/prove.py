"""Comparison 0 of the proof: the numbers of every graph that ships, beside the checkpoint it comes from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from saq_qat.errors import ArtifactError
from saq_qat_export.graph.onnx_graph import read_onnx
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.lowered import Lowered
from saq_qat_export.proof.numbers.compare import Numbers, compare_file
from saq_qat_export.proof.numbers.trained import read_trained

__all__ = ["compare_contents", "compare_numbers_of", "describe_differences", "with_contents"]

_LISTED = 8


def compare_numbers_of(lowered: Lowered) -> list[Comparison]:
    """A hard comparison for each graph that ships."""
    contents = {target: graph.content for target, graph in lowered.shipped.items()}
    try:
        found = compare_contents(contents, lowered.restored.checkpoint)
    except ArtifactError as error:
        return [Comparison("numbers of the graphs = checkpoint", True, False, 0, 0, str(error))]
    return [
        Comparison(
            f"numbers of the graph for {target} = checkpoint",
            True,
            not numbers.differences,
            numbers.compared,
            numbers.differing,
            _detail(numbers),
        )
        for target, numbers in found.items()
    ]


def _detail(numbers: Numbers) -> str:
    if numbers.differences:
        return f"first at {numbers.differences[0]}"
    if numbers.constant_channels:
        return f"{numbers.constant_channels} channels are their bias alone, beyond 2^30 units"
    return ""


def compare_contents(contents: Mapping[str, bytes], checkpoint: Path) -> dict[str, Numbers]:
    """Compare ONNX files, by target, with the checkpoint in a folder.

    Raises:
        ArtifactError: the checkpoint has no records, or a file is no ONNX.
    """
    trained = read_trained(checkpoint)
    return {target: compare_file(content, trained) for target, content in contents.items()}


def describe_differences(name: str, numbers: Numbers) -> str:
    """The first differences of a file in words, a line each."""
    shown = [f"  {difference}" for difference in numbers.differences[:_LISTED]]
    left = len(numbers.differences) - len(shown)
    more = [f"  and in {left} more places"] if left else []
    return "\n".join(
        [f"{name}: {numbers.differing:,} of {numbers.compared:,} numbers differ:", *shown, *more]
    )


def with_contents(lowered: Lowered, contents: Mapping[str, bytes]) -> Lowered:
    """The lowered run with the graphs of a bundle, which any version may have written, as what is proved."""
    runtime, graphs = contents.get("onnxruntime"), lowered.tensorrt
    if runtime is not None and runtime != lowered.graph.content:
        lowered = replace(lowered, graph=read_onnx(runtime))
    if "tensorrt" in contents and graphs is not None:
        graph = read_onnx(contents["tensorrt"])
        is_half = graphs.float16 is not None
        graphs = replace(graphs, float16=graph) if is_half else replace(graphs, float32=graph)
        lowered = replace(lowered, tensorrt=graphs)
    if "openvino" in contents and lowered.openvino is not None:
        lowered = replace(lowered, openvino=read_onnx(contents["openvino"]))
    return lowered
