"""From a run folder to a bundle: restore, lower, export, prove, write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saq_qat.errors import GateError, LegalityError
from saq_qat.quant.plan.plan import Finding
from saq_qat.quant.plan.targets import TARGETS
from saq_qat.train.checkpoint import Form
from saq_qat.train.choose import CheckpointName, Choice, choose_checkpoint
from saq_qat_export.bundle.check import check_bundle
from saq_qat_export.bundle.destination import check_destination
from saq_qat_export.bundle.expected import check_images_destination, write_images
from saq_qat_export.bundle.golden import golden_images
from saq_qat_export.bundle.write import make_bundle, write_bundle
from saq_qat_export.lint.pair_bound import pair_finding
from saq_qat_export.proof.fixes import failed_checks, flip_fix
from saq_qat_export.proof.lowered import Lowered, lower_run
from saq_qat_export.proof.prove import Proof, ProofSize, prove
from saq_qat_export.proof.trained_numbers import check_weights
from saq_qat_export.tensorrt.own_graphs import lint_graph
from saq_qat_runtime.bundle.manifest import Manifest

__all__ = ["Exported", "Shipped", "export_lowered", "export_run"]

_GOLDEN_IMAGES = 2


@dataclass(frozen=True)
class Shipped:
    """A bundle that was written: its manifest, its proof, and what the rules of TensorRT say of its graph."""

    manifest: Manifest
    proof: Proof
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Exported:
    """What ``export_run`` wrote, the proof of it, and what the rules of TensorRT say of its graph.

    Attributes:
        choice: the checkpoint that was taken, beside the other one.
        form: of the network in the checkpoint; ``deploy`` after a deploy stage.
    """

    folder: Path
    choice: Choice
    form: Form
    manifest: Manifest
    proof: Proof
    findings: tuple[Finding, ...]


def export_run(
    run: Path,
    folder: Path,
    *,
    checkpoint: CheckpointName | None = None,
    size: ProofSize | None = None,
    tensorrt: bool = False,
    images: Path | None = None,
    allow_failed_gate: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write the bundle of a run into ``folder``.

    Args:
        checkpoint: which of the run's; the best of its last stage if left out.
        tensorrt: write a graph for TensorRT too, although the recipe may not name it.
        images: a new or empty folder for the images that expected.csv names.

    Raises:
        ArtifactError: the run cannot be lowered, a layer's weights are not finite or nothing but zeros,
            ``folder`` holds something that is no bundle, or ``images`` anything.
        LegalityError, GateError: a graph breaks a rule of its target, or a hard comparison failed (a
            threshold of the recipe among them), and ``allow_failed_gate`` is false; nothing is written.
        GateError: manifest, golden samples and files disagree, whatever is allowed; nothing is written.
    """
    check_destination(folder)
    if images is not None:
        check_images_destination(images)
    on_step("lowering to integers and exporting to ONNX")
    choice = choose_checkpoint(run, checkpoint)
    lowered = lower_run(run, choice.taken.name, tensorrt=tensorrt)
    shipped = export_lowered(lowered, folder, size=size, allow_failed_gate=allow_failed_gate, on_step=on_step)
    restored = lowered.restored
    if images is not None:
        on_step("writing the images of expected.csv")
        write_images(restored, shipped.proof.agreement, images)
    return Exported(folder, choice, restored.form, shipped.manifest, shipped.proof, shipped.findings)


def export_lowered(
    lowered: Lowered,
    folder: Path,
    *,
    size: ProofSize | None = None,
    allow_failed_gate: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Shipped:
    """Prove a lowered network and write its bundle into ``folder``; errors as of ``export_run``."""
    check_weights(lowered.network, lowered.restored.run)
    _check_pairs(lowered, allow_failed_gate=allow_failed_gate)
    findings = _check_rules(lowered, allow_failed_gate=allow_failed_gate)
    proof = prove(lowered, size or ProofSize(), on_step)
    if not proof.passed and not allow_failed_gate:
        raise GateError(_failure(proof, lowered.restored.form))
    on_step("writing the bundle")
    golden = golden_images(lowered.restored, _GOLDEN_IMAGES)
    bundle = make_bundle(lowered, proof, golden, allow_failed_gate=allow_failed_gate)
    check_bundle(bundle, lowered, proof, golden, allow_failed_gate=allow_failed_gate)
    write_bundle(bundle, folder)
    return Shipped(bundle.manifest, proof, findings)


def _check_pairs(lowered: Lowered, *, allow_failed_gate: bool) -> None:
    """ORT005 over the files themselves, but for ONNX Runtime on CPUs with VNNI alone."""
    cpu = lowered.restored.recipe.deploy.onnxruntime.cpu
    for target, graph in lowered.shipped.items():
        due = cpu in TARGETS[target].pairs_saturate and not allow_failed_gate
        if due and graph.over_pair_bound:
            listed = "\n".join(f"  {pair_finding(product)}" for product in graph.over_pair_bound)
            raise LegalityError(
                f"The graph for {target} breaks its rules, so no bundle was written:\n{listed}"
            )


def _check_rules(lowered: Lowered, *, allow_failed_gate: bool) -> tuple[Finding, ...]:
    graph = lowered.shipped.get("tensorrt")
    if graph is None:
        return ()
    findings = lint_graph(graph, lowered.restored.recipe.deploy.tensorrt)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors and not allow_failed_gate:
        listed = "\n".join(f"  {error}" for error in errors)
        raise LegalityError(f"The graph for TensorRT breaks its rules, so no bundle was written:\n{listed}")
    return findings


def _failure(proof: Proof, form: Form) -> str:
    fix = flip_fix(proof.comparisons, biases_learned=form == "deploy")
    return (
        f"Not proved, so no bundle was written: {'; '.join(failed_checks(proof.comparisons))}. "
        + (f"The {fix} " if fix else "")
        + "--allow-failed-gate writes the bundle, marked as failed; 'saq-qat verify' then shows every tensor."
    )
