"""A run's checkpoint, lowered: deploy view and the ONNX graph of each target."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import fx

from saq_qat.data.open import ImageData
from saq_qat.errors import ArtifactError, LegalityError
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.plan.legality import judge
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import TensorRt
from saq_qat.train.restore import Restored, restore
from saq_qat_export.graph.onnx_graph import OnnxGraph, export_graph, export_onnx, export_tensorrt
from saq_qat_export.proof.tensorrt import TensorRtGraphs
from saq_qat_export.proof.trained_numbers import check_clip_levels

__all__ = ["Lowered", "lower_restored", "lower_run"]


@dataclass(frozen=True)
class Lowered:
    """A run's checkpoint as trained network, deploy view and ONNX graphs.

    Attributes:
        targets: those the graphs are for.
        graph: for ONNX Runtime, the engine of the proof whatever the targets are.
        tensorrt, openvino: for these, if they are targets.
        shipped: the graph of each target.
    """

    restored: Restored
    network: fx.GraphModule
    plan: Plan
    view: fx.GraphModule
    targets: tuple[str, ...]
    graph: OnnxGraph
    tensorrt: TensorRtGraphs | None
    openvino: OnnxGraph | None = None

    @property
    def shipped(self) -> dict[str, OnnxGraph]:
        graphs = {"onnxruntime": self.graph}
        if self.tensorrt is not None:
            graphs["tensorrt"] = self.tensorrt.float16 or self.tensorrt.float32
        if self.openvino is not None:
            graphs["openvino"] = self.openvino
        return {target: graphs[target] for target in self.targets}


def lower_run(
    run: Path,
    checkpoint: Literal["last", "best"],
    *,
    tensorrt: bool = False,
    images: ImageData | None = None,
    trained: bool = True,
) -> Lowered:
    """Restore a run and lower it for its targets.

    Args:
        tensorrt: for TensorRT too, although the recipe may not name it.
        images: those that the run's recipe names, where they are open already.
        trained: False for a network at its start, whose layers of zeros may still learn.

    Raises:
        ArtifactError: the run is in full precision, cannot be restored, or holds a clip level of no use.
        LegalityError: TensorRT cannot run what was trained.
    """
    restored = restore(run, checkpoint, images)
    if trained:
        check_clip_levels(restored.network, run)
    return lower_restored(restored, tensorrt=tensorrt)


def lower_restored(restored: Restored, *, tensorrt: bool = False) -> Lowered:
    """Lower a restored network for its targets; arguments and errors as of ``lower_run``."""
    if restored.plan is None or not isinstance(restored.network, fx.GraphModule):
        raise ArtifactError(f"Export needs a quantized network. {restored.why_float}")
    deploy, settings = restored.recipe.deploy, restored.images.preprocessing
    targets: tuple[str, ...] = deploy.targets or ("onnxruntime",)
    if tensorrt and "tensorrt" not in targets:
        targets = (*targets, "tensorrt")
    plan = _judged_for(targets, restored.plan, restored)
    view = deploy_view(restored.network, deploy)
    shape = (settings.channels, settings.image_size, settings.image_size)
    return Lowered(
        restored,
        restored.network,
        plan,
        view,
        targets,
        export_onnx(view, shape, deploy),
        _tensorrt_graphs(view, shape, deploy.tensorrt) if "tensorrt" in targets else None,
        export_graph(view, shape, "openvino", deploy) if "openvino" in targets else None,
    )


def _tensorrt_graphs(view: fx.GraphModule, shape: tuple[int, int, int], settings: TensorRt) -> TensorRtGraphs:
    """In float32 always, for the proof; in float16 too where that is what ships."""
    halved = export_tensorrt(view, shape, settings) if settings.precision == "float16" else None
    single = settings.model_copy(update={"precision": "float32"})
    return TensorRtGraphs(export_tensorrt(view, shape, single), halved, settings.attention)


def _judged_for(targets: tuple[str, ...], plan: Plan, restored: Restored) -> Plan:
    """The plan as training judged it, or judged again for targets that the recipe does not name."""
    if targets == restored.recipe.deploy.targets or not isinstance(restored.network, fx.GraphModule):
        return plan
    cpu = restored.recipe.deploy.onnxruntime.cpu
    judged = judge(plan, restored.network, targets, cpu=cpu)
    if judged.errors:
        listed = "\n".join(f"  {error}" for error in judged.errors)
        raise LegalityError(f"{restored.run} was not trained for {', '.join(targets)}:\n{listed}")
    return judged
