"""Injects one mutant between the trained network and the bundle, and exports."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_ir as ir
import pytest
from torch import fx

from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.load import parse_recipe
from saq_qat.train.restore import Restored
from saq_qat.train.run import run_training
from saq_qat_export import run as run_module
from saq_qat_export.bundle.write import make_bundle
from saq_qat_export.graph import onnx_graph as graph_module
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof import lowered as lowered_module
from saq_qat_export.proof import prove as proof_module
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.function import FUNCTION_COMPARISON
from saq_qat_export.proof.lowered import Lowered, lower_run
from saq_qat_export.proof.prove import Proof, ProofSize, prove
from tests.gate.networks import RECIPES

__all__ = ["SIZE", "Mutant", "Place", "Trained", "injected", "train"]

SIZE = ProofSize(code_images=2, top1_images=4)

Place = Literal[
    "training",
    "arithmetic",
    "view",
    "graph",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "float16",
    "bundle",
    "code",
]


@dataclass(frozen=True)
class Mutant:
    """One wrong thing between checkpoint and bundle, and what the refusal has to name.

    Attributes:
        network: key of ``RECIPES``.
        place: what ``change`` gets, and what follows from it. ``training``: a copy of the fake-quant network,
            so that lowering understood another one. ``arithmetic``: pytest's MonkeyPatch, for functions of
            the product. ``view``: the deploy view, whose numbers change; the files have the same wrong
            numbers. ``graph``: the deploy view, whose operations change.
            ``onnxruntime``, ``openvino``, ``tensorrt``, ``float16``: one file alone, as a model to edit.
            ``bundle``: files and manifest, ready to be written. ``code``: MonkeyPatch, for the user's model
            and data.
        change: in place, but for ``bundle``, where it returns the changed one.
        named: regular expression that the message of the refusal has to match.
    """

    name: str
    network: str
    place: Place
    change: Callable[[Any], Any]
    named: str


@dataclass(frozen=True)
class Trained:
    """A run with everything that is the same for all its mutants.

    Attributes:
        models: what was exported, by operator set version, before our passes.
    """

    run: Path
    lowered: Lowered
    proof: Proof
    models: dict[int, ir.Model]

    @property
    def function(self) -> Comparison:
        (found,) = (
            comparison for comparison in self.proof.comparisons if comparison.name == FUNCTION_COMPARISON
        )
        return found

    @property
    def restored(self) -> Restored:
        return self.lowered.restored


def train(name: str, folder: Path) -> Trained:
    """Train the network of that name and lower it once."""
    run_training(parse_recipe(RECIPES[name], name), folder)
    models: dict[int, ir.Model] = {}
    export = graph_module._exported

    def remembering(view: fx.GraphModule, shape: Any, opset: int, patterns: Any) -> ir.Model:
        model = export(view, shape, opset, patterns)
        models[opset] = model.clone()
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_module, "_exported", remembering)
        lowered = lower_run(folder, "last")
    return Trained(folder, lowered, prove(lowered, SIZE), models)


@contextmanager
def injected(mutant: Mutant, trained: Trained) -> Iterator[None]:
    """``export_run`` meets the mutant in this context."""
    with pytest.MonkeyPatch.context() as patch:
        if mutant.place == "code":
            mutant.change(patch)
            yield
            return
        patch.setattr(lowered_module, "restore", lambda *_: _of_one_target(trained.restored))
        if mutant.place == "arithmetic":
            mutant.change(patch)
        elif mutant.place == "bundle":
            patch.setattr(run_module, "prove", lambda *_: trained.proof)
            patch.setattr(run_module, "make_bundle", lambda *a, **k: mutant.change(make_bundle(*a, **k)))
        _leave_out(patch, mutant.place, trained)
        if mutant.place in ("arithmetic", "view", "graph"):
            _lower_again(patch, mutant, trained)
        else:
            lowered = _changed(mutant, trained.lowered)
            patch.setattr(run_module, "lower_run", lambda *_, **__: lowered)
        yield


def _leave_out(patch: pytest.MonkeyPatch, place: Place, trained: Trained) -> None:
    """Comparisons that cannot see the mutant: they take most of the time, and what is left has to find it.

    What is wrong above the deploy view is as wrong in the files, so that their codes agree. A file alone has
    no part in the comparison of the trained network with the deploy view.
    """
    if place in ("training", "arithmetic", "view", "graph"):
        patch.setattr(proof_module, "code_comparisons", lambda *_, **__: [])
    if place in ("onnxruntime", "openvino", "tensorrt", "float16"):
        patch.setattr(proof_module, "function_comparison", lambda *_: trained.function)
    if place in ("openvino", "tensorrt", "float16"):
        patch.setattr(proof_module, "code_comparisons", lambda *_, **__: [])


def _lower_again(patch: pytest.MonkeyPatch, mutant: Mutant, trained: Trained) -> None:
    """A wrong deploy view is what both files are exported from."""
    view_of, change = deploy_view, mutant.change

    def wrong_view(*arguments: Any, **settings: Any) -> fx.GraphModule:
        view = view_of(*arguments, **settings)
        change(view)
        if mutant.place == "graph":
            view.recompile()
        return view

    def with_numbers_of(view: fx.GraphModule, shape: Any, opset: int, patterns: Any) -> ir.Model:
        """The network's own graph with other numbers.

        Where operations change, the old graph stands in for the file: nothing left compares it with the view.
        """
        model = trained.models[opset].clone()
        if mutant.place == "graph":
            return model
        numbers = view.state_dict()
        for name, value in model.graph.initializers.items():
            if name in numbers:
                value.const_value = ir.tensor(numbers[name].numpy(), name=name)
        return model

    if mutant.place != "arithmetic":
        patch.setattr(lowered_module, "deploy_view", wrong_view)
    patch.setattr(graph_module, "_exported", with_numbers_of)


def _changed(mutant: Mutant, lowered: Lowered) -> Lowered:
    if mutant.place == "training":
        network = copy.deepcopy(lowered.network)
        mutant.change(network)
        network.recompile()
        restored = replace(lowered.restored, network=network)
        return replace(_for_onnxruntime(lowered), network=network, restored=restored)
    if mutant.place == "onnxruntime":
        return replace(_for_onnxruntime(lowered), graph=_edited(lowered.graph, mutant.change))
    if mutant.place == "openvino" and lowered.openvino is not None:
        return replace(lowered, openvino=_edited(lowered.openvino, mutant.change))
    if mutant.place == "tensorrt" and lowered.tensorrt is not None:
        wrong = _edited(lowered.tensorrt.float32, mutant.change)
        return replace(lowered, tensorrt=replace(lowered.tensorrt, float32=wrong))
    if mutant.place == "float16" and lowered.tensorrt is not None and lowered.tensorrt.float16 is not None:
        wrong = _edited(lowered.tensorrt.float16, mutant.change)
        return replace(lowered, tensorrt=replace(lowered.tensorrt, float16=wrong))
    return lowered


def _of_one_target(restored: Restored) -> Restored:
    """Exported for ONNX Runtime alone, in half the time."""
    deploy = restored.recipe.deploy.model_copy(update={"targets": ("onnxruntime",)})
    return replace(restored, recipe=restored.recipe.model_copy(update={"deploy": deploy}))


def _for_onnxruntime(lowered: Lowered) -> Lowered:
    """Without the graph for TensorRT, which has no part in it and takes time to prove."""
    return replace(lowered, targets=("onnxruntime",), tensorrt=None)


def _edited(graph: OnnxGraph, change: Callable[[onnx.ModelProto], None]) -> OnnxGraph:
    model = onnx.load_from_string(graph.content)
    change(model)
    return replace(graph, content=model.SerializeToString(deterministic=True))
