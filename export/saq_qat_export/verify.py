"""The whole proof for a bundle that was written: its own files, beside the checkpoint they came from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from saq_qat.errors import ArtifactError, GateError
from saq_qat.train.checkpoint import newest_checkpoint
from saq_qat_export.bundle.expected import expected_comparison
from saq_qat_export.bundle.manifest_check import check_manifest
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.lowered import Lowered
from saq_qat_export.proof.numbers.prove import compare_contents, describe_differences, with_contents
from saq_qat_export.proof.prove import Proof, ProofSize, prove, prove_engine
from saq_qat_runtime.bundle.expected import read_expected
from saq_qat_runtime.bundle.files import read_verified
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.session import Session
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES

__all__ = ["Lower", "VerifiedBundle", "verify_bundle"]

Lower = Callable[[bool], Lowered]
"""Lowers the checkpoint again; told whether for TensorRT too."""


@dataclass(frozen=True)
class VerifiedBundle:
    """What was proved of a bundle; ``absent``: engines that could not be compared, and why."""

    manifest: Manifest
    lowered: Lowered
    proof: Proof
    absent: tuple[str, ...]


def verify_bundle(
    bundle: Path,
    checkpoint: Path,
    lower: Lower,
    size: ProofSize,
    on_step: Callable[[str], None] = lambda _: None,
) -> VerifiedBundle:
    """Compare the numbers of the files with the checkpoint's, and prove the files.

    A hard comparison that fails is in the proof, and raises nothing.

    Args:
        checkpoint: its folder; its digest is the one in the manifest.

    Raises:
        ArtifactError: a file is damaged, or there is no such checkpoint.
        GateError: a file states other numbers than the checkpoint, or the manifest disagrees with the files.
    """
    manifest = Manifest.load(bundle)
    on_step("every number of the bundle's graphs, beside the checkpoint's")
    contents = _check_numbers(bundle, manifest, checkpoint)
    on_step("lowering the checkpoint again")
    lowered = with_contents(lower("tensorrt" in manifest.models), contents)
    files = {file.name: (bundle / file.name).read_bytes() for file in manifest.files()}
    check_manifest(manifest, files, lowered)
    proof = prove(lowered, size, on_step)
    on_step("engines that can run here")
    engines, absent = _engine_comparisons(bundle, lowered, size)
    answers = expected_comparison(read_expected(bundle, manifest), lowered.restored, proof.agreement)
    proof = replace(proof, comparisons=(*proof.comparisons, *engines, answers))
    return VerifiedBundle(manifest, lowered, proof, tuple(absent))


def _engine_comparisons(
    bundle: Path, lowered: Lowered, size: ProofSize
) -> tuple[list[Comparison], list[str]]:
    """A comparison for each engine of the bundle that can run on this machine, and why the others cannot."""
    comparisons, absent = [], []
    for flavour, name in ENGINE_FILES.items():
        if not (bundle / name).is_file():
            continue
        try:
            session = Session.load(bundle, backend=flavour, allow_failed_gate=True)
        except BackendUnavailable as error:
            absent.append(f"{name} was not compared: {error}")
            continue
        with session:
            session.self_test()
            comparisons.append(prove_engine(lowered, name, session.run, size))
    return comparisons, absent


def _check_numbers(folder: Path, manifest: Manifest, checkpoint: Path) -> dict[str, bytes]:
    """The bundle's graphs by target, which must state the numbers of the checkpoint, whatever wrote them."""
    found = newest_checkpoint(checkpoint)
    if found is None or found.folder is None:
        raise ArtifactError(f"{checkpoint}: no such checkpoint; the training has not saved one yet.")
    models = manifest.models
    contents = {t: read_verified(folder, m.name, m.sha256, m.bytes) for t, m in models.items()}
    numbers = compare_contents(contents, found.folder)
    wrong = [describe_differences(models[t].name, n) for t, n in numbers.items() if n.differences]
    if wrong:
        raise GateError(
            f"{folder}: its numbers are not those of {found.folder}.\n" + "\n".join(wrong) + f"\nThe bundle "
            f"was made by {manifest.created_by}. Export again, or name the checkpoint it was made from."
        )
    return contents
