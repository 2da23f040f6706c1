"""The whole way of a recipe without its training: what passes here meets no new refusal later.

A checkpoint of the network as it is initialised, calibrated on a few images, goes through everything that
``train`` and ``export`` do to the trained one: saved and restored, lowered, its graphs written, held against
the rules and compared, number by number and code by code. Accuracy is not judged, since nothing was learned.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from saq_qat.data.batches import train_batches
from saq_qat.data.open import ImageData
from saq_qat.data.record import data_record
from saq_qat.errors import ArtifactError, GateError, LegalityError, SaqError
from saq_qat.quant.plan.plan import Finding, Plan
from saq_qat.quant.plan.targets import TARGETS
from saq_qat.recipe.load import dump_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import Checkpoint, Form, Position, write_checkpoint
from saq_qat.train.folder import RESOLVED
from saq_qat.train.forms import computed_of, next_form, records_of
from saq_qat_export.bundle.check import check_bundle
from saq_qat_export.bundle.golden import golden_images
from saq_qat_export.bundle.write import make_bundle
from saq_qat_export.lint.pair_bound import pair_finding
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.fixes import failed_checks
from saq_qat_export.proof.lowered import Lowered, lower_run
from saq_qat_export.proof.predictions import Agreement
from saq_qat_export.proof.prove import Proof, prove_integers
from saq_qat_export.tensorrt.own_graphs import lint_graph
from saq_qat_runtime.bundle.gate import CONSTANT_COMPARISON
from saq_qat_runtime.errors import BackendUnavailable, SessionError
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend

__all__ = ["Rehearsal", "check_deployable", "rehearse"]

_IMAGES, _TIED_IMAGES = 2, 1
_CALIBRATION_IMAGES = 4


@dataclass(frozen=True)
class Rehearsal:
    """What the rules say of the graphs, and every comparison of them with the network.

    Attributes:
        kernels: of the graph that ONNX Runtime makes, those on integers.
    """

    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]
    kernels: IntegerCount

    @property
    def failed(self) -> tuple[Comparison, ...]:
        """Hard comparisons that do not hold."""
        return tuple(found for found in self.comparisons if found.hard and not found.passed)


def rehearse(
    network: nn.Module,
    recipe: Recipe,
    images: ImageData,
    *,
    plan: Plan | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Rehearsal:
    """Deploy a float network as it is; its BatchNorms and clip levels are placed by the first images.

    Args:
        network: as ``build_model`` gives it; its parameters are shared with what is saved, and not trained.
        plan: where ``network`` is what ``plan_network`` made of that, the plan it gave; quantized in place.
        on_step: told in words what is being done.

    Raises:
        LegalityError: a target cannot run the plan, or the deployed network as a whole.
        SaqError: anything else that ``train`` and ``export`` would refuse.
        BackendUnavailable: the engine of a target that is proved by running it is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="saq-qat-") as folder:
        run = Path(folder)
        on_step("quantizing the untrained network, on the first images")
        _write_run(network, plan, recipe, images, run)
        on_step("lowering it and writing its graphs")
        lowered = lower_run(run, "last", images=images, trained=False)
        findings = _findings(lowered)
        on_step("loading and comparing its integers")
        kernels = OnnxRuntimeBackend(lowered.graph.content).integer_count()
        comparisons = prove_integers(lowered, _IMAGES, on_step, adversarial_images=_TIED_IMAGES, brief=True)
        found = Rehearsal(findings, tuple(comparisons), kernels)
        if not found.failed:
            on_step("the bundle that would be written")
            _check_bundle(lowered, found)
        return found


def check_deployable(
    network: nn.Module,
    recipe: Recipe,
    images: ImageData,
    *,
    plan: Plan | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Rehearsal:
    """As ``rehearse``, with every comparison passed; arguments as there.

    Raises:
        LegalityError: ``train`` or ``export`` would refuse the network later, whatever it learns.
    """
    try:
        rehearsal = rehearse(network, recipe, images, plan=plan, on_step=on_step)
    except (LegalityError, BackendUnavailable):
        raise
    except (ArtifactError, GateError, SessionError) as error:
        raise LegalityError(
            f"The untrained network cannot be deployed, and no training changes that: {error}"
        ) from error
    except SaqError:
        raise
    # Whatever else goes wrong would go wrong after hours of training too.
    except Exception as error:
        place = re.search(r"While executing %(\w+)", str(error))
        where = f" at {place.group(1)}" if place else ""
        raise LegalityError(
            f"The untrained network was not taken through export{where}, which is a fault of saq-qat and "
            f"not of the network: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}. Please "
            "report it (--debug shows the traceback); without deployment (deploy.targets: []) it trains."
        ) from error
    if [found.name for found in rehearsal.failed] == [CONSTANT_COMPARISON]:
        (found,) = rehearsal.failed
        raise LegalityError(
            f"Layers of the untrained network would ship as their biases alone: {found.detail}. "
            "Initialise their weights larger or their biases smaller, or allow so many channels "
            "(deploy.thresholds.max_constant_channels)."
        )
    if rehearsal.failed:
        raise LegalityError(
            "The untrained network was deployed, and its integers are not its own: "
            f"{'; '.join(failed_checks(rehearsal.failed))}. Training would not change that: "
            "write the operation named first otherwise, or train without deployment (deploy.targets: [])."
        )
    return rehearsal


def _write_run(network: nn.Module, plan: Plan | None, recipe: Recipe, images: ImageData, run: Path) -> None:
    """The run's folder as training would leave it before its first step."""
    kinds = {stage.kind for stage in recipe.train.stages}
    form: Form = "deploy" if "deploy" in kinds else "quantized"
    size = min(_CALIBRATION_IMAGES, recipe.train.batch_size)
    batches = train_batches(images, batch_size=size, seed=recipe.seed, epoch=0)
    first, _ = next(iter(batches))
    quantized, plan = next_form(network, plan, recipe, "float", form, lambda: [first])
    checkpoint = Checkpoint(
        Position(), form, 1, quantized.state_dict(), records=records_of(quantized, plan, recipe),
        data=data_record(images), computed=computed_of(quantized),
    )  # fmt: skip  # one value a line is a page
    write_checkpoint(run / "checkpoints" / "last", checkpoint)
    (run / RESOLVED).write_bytes(dump_recipe(recipe).encode())


def _check_bundle(lowered: Lowered, found: Rehearsal) -> None:
    """Manifest and golden samples, as ``export`` holds them against the graphs; of no accuracy at all."""
    proof = Proof(found.comparisons, Agreement(0, 0.0, 0.0, 0.0, 0, 0, ()), found.kernels)
    golden = golden_images(lowered.restored, 1)
    bundle = make_bundle(lowered, proof, golden, allow_failed_gate=False, kept=False)
    check_bundle(bundle, lowered, proof, golden, allow_failed_gate=False)


def _findings(lowered: Lowered) -> tuple[Finding, ...]:
    deploy = lowered.restored.recipe.deploy
    found: tuple[Finding, ...] = ()
    for target, graph in lowered.shipped.items():
        if target == "tensorrt":
            found += lint_graph(graph, deploy.tensorrt)
        elif deploy.onnxruntime.cpu in TARGETS[target].pairs_saturate:
            found += tuple(pair_finding(product) for product in graph.over_pair_bound)
    return found
