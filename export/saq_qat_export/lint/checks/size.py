"""Shapes the engine must accept, and files too large to be read as one."""

from collections.abc import Iterator

import onnx_ir as ir

from saq_qat_export.lint.nodes import dimensions
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.view import GraphView, Violation
from saq_qat_runtime.tensorrt.engine_record import Profile

__all__ = ["large_file", "profiles"]

_MESSAGE_LIMIT = 2**31


def profiles(view: GraphView, settings: LintSettings) -> Iterator[Violation]:
    """TRT017: every dynamic input has a profile, and profiles fit the inputs they name."""
    given = {profile.input: profile for profile in settings.profiles}
    inputs = {value.name: value for value in view.inputs}
    for name, value in inputs.items():
        sizes, profile = dimensions(value), given.get(name or "")
        if profile is not None:
            yield from _unfit(profile, sizes)
        elif sizes is None or None in sizes:
            shape = "rank" if sizes is None else "shape"
            yield Violation(
                name or "input",
                f"its {shape} is dynamic and no profile says which sizes the engine shall accept.",
                "Where only the first dimension is dynamic, give batch sizes (saq-qat check --batch, "
                "deploy.tensorrt.batch); else export with static height, width and length.",
            )
    for name in sorted(given.keys() - inputs.keys()):
        known = ", ".join(str(known) for known in inputs)
        yield Violation(
            name, f"a profile names an input that the graph does not have; it has {known}.", "Rename it."
        )


def _unfit(profile: Profile, sizes: tuple[int | None, ...] | None) -> Iterator[Violation]:
    for shape in (profile.minimum, profile.optimum, profile.maximum):
        same_rank = sizes is not None and len(shape) == len(sizes)
        pairs = zip(shape, sizes or (), strict=False)
        if sizes is not None and not (same_rank and all(size in (None, asked) for asked, size in pairs)):
            stated = ", ".join("?" if size is None else str(size) for size in sizes)
            yield Violation(
                profile.input,
                f"its profile asks for shape {list(shape)} where the graph states [{stated}].",
                "Let the profile differ from the graph in dynamic dimensions only.",
            )
            return


def large_file(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT117: a model over 2 GB, or with weights in other files, is parsed from its path, not from memory."""
    constants = [value.const_value for graph in view.model.graphs() for value in graph.initializers.values()]
    external = [tensor for tensor in constants if isinstance(tensor, ir.ExternalTensor)]
    size = sum(t.nbytes for t in constants if t is not None and t.dtype != ir.DataType.STRING)
    if external or size >= _MESSAGE_LIMIT:
        reason = (
            f"{len(external)} weights lie in other files" if external else f"its weights take {size} bytes"
        )
        yield Violation(
            "model",
            f"{reason}, which a parser that gets the model from memory does not see.",
            "Build with OnnxParser.parse_from_file (saq-qat build does), and move all files together.",
        )
