"""`saq-qat verify`: the whole proof for a run, tensor by tensor."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.console import progress, resolve_run
from saq_qat.errors import ArtifactError, GateError

if TYPE_CHECKING:
    from saq_qat.train.choose import Choice
    from saq_qat_export.proof.comparison import Comparison
    from saq_qat_export.proof.lowered import Lowered
    from saq_qat_export.proof.prove import Proof, ProofSize
    from saq_qat_runtime.bundle.manifest import Manifest

__all__ = ["verify"]


def verify(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option(
            "--checkpoint",
            help="Which checkpoint of the run; the one that the bundle was exported from if left out.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder of the bundle; RUN/export if left out.")
    ] = None,
    code_images: Annotated[int, typer.Option(help="Images whose every code is compared.", min=1)] = 16,
    top1_images: Annotated[int, typer.Option(help="Validation images to classify; 0 for all.", min=0)] = 0,
) -> None:
    """Compare checkpoint, fake-quant network, deploy view, integer reference and the bundle's graphs: every
    number and every code.

    Exit code 1 if a hard comparison fails, 3 if the bundle is damaged or belongs to another checkpoint.
    """
    from saq_qat.cli.proof_text import print_comparisons, print_flips, print_tensors
    from saq_qat_export.proof.fixes import failed_checks, flip_fix
    from saq_qat_export.proof.prove import ProofSize

    folder = resolve_run(run)
    size = ProofSize(code_images, top1_images or None)
    verified = _verify(folder, bundle or folder / "export", checkpoint, size)
    typer.echo(str(verified.choice))
    print_tensors(verified.proof)
    print_flips(verified.proof, verified.manifest.labels)
    typer.echo("")
    print_comparisons(verified.proof)
    for reason in verified.absent:
        typer.echo(reason)
    failed = failed_checks(verified.proof.comparisons)
    if failed:
        fix = flip_fix(verified.proof.comparisons, biases_learned=verified.form == "deploy")
        hint = f"\nThe {fix}" if fix else ""
        raise GateError(f"Not proved: {'; '.join(failed)}. Every number is in {verified.report}.{hint}")


@dataclass(frozen=True)
class _Verified:
    """What was proved of which checkpoint; ``absent``: engines that could not be compared, and why."""

    choice: "Choice"
    manifest: "Manifest"
    proof: "Proof"
    form: str
    absent: list[str]
    report: Path


def _verify(
    folder: Path, place: Path, checkpoint: Literal["last", "best"] | None, size: "ProofSize"
) -> _Verified:
    """Prove the bundle in ``place`` and write the result into the run's report."""
    from saq_qat.train.choose import checkpoint_with, choose_checkpoint
    from saq_qat_export.bundle.expected import expected_comparison
    from saq_qat_export.bundle.manifest_check import check_manifest
    from saq_qat_export.proof.lowered import lower_run
    from saq_qat_export.proof.numbers.prove import with_contents
    from saq_qat_export.proof.prove import prove
    from saq_qat_export.proof.verification import Verification, write_verification
    from saq_qat_runtime.bundle.expected import read_expected
    from saq_qat_runtime.bundle.manifest import Manifest, bundle_sha256

    with progress("verify") as shown:
        shown.say(f"verify {folder}")
        manifest, digest = Manifest.load(place), bundle_sha256(place)
        asked = checkpoint or checkpoint_with(folder, manifest.checkpoint_sha256)
        choice = choose_checkpoint(folder, asked)
        _check_checkpoint(place, manifest, choice)
        shown.advance(note="every number of the bundle's graphs, beside the checkpoint's")
        contents = _check_numbers(place, manifest, folder / "checkpoints" / asked)
        shown.advance(note="lowering the checkpoint again")
        lowered = lower_run(folder, asked, tensorrt="tensorrt" in manifest.models)
        lowered = with_contents(lowered, contents)
        files = {file.name: (place / file.name).read_bytes() for file in manifest.files()}
        check_manifest(manifest, files, lowered)
        proof = prove(lowered, size, lambda step: shown.advance(note=step))
        shown.advance(note="engines that can run here")
        engines, absent = _engine_comparisons(place, lowered, size)
        answers = expected_comparison(read_expected(place, manifest), lowered.restored, proof.agreement)
        proof = replace(proof, comparisons=(*proof.comparisons, *engines, answers))
        report = folder / "report" / "verify.json"  # before the text, whose reader may leave early
        write_verification(Verification.of(proof, lowered.restored.checkpoint_sha256, digest), report)
        shown.advance(note="done")
    return _Verified(choice, manifest, proof, lowered.restored.form, absent, report)


def _engine_comparisons(
    bundle: Path, lowered: "Lowered", size: "ProofSize"
) -> "tuple[list[Comparison], list[str]]":
    """A comparison for each engine of the bundle that can run on this machine, and why the others cannot."""
    from saq_qat_export.proof.prove import prove_engine
    from saq_qat_runtime.errors import BackendUnavailable
    from saq_qat_runtime.session import Session
    from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES

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


def _check_checkpoint(folder: Path, manifest: "Manifest", choice: "Choice") -> None:
    """A proof is about the checkpoint that the bundle was exported from, and about no other."""
    taken, other, exported = choice.taken, choice.other, manifest.checkpoint_sha256
    if taken.sha256 == exported:
        return
    fix = "Export again, or name the run that the bundle was exported from."
    if other is not None and other.sha256 == exported:
        fix = f"Verify it with --checkpoint {other.name}."
    raise ArtifactError(
        f"{folder}: exported from checkpoint {exported[:12]}..., and checkpoint {taken.name!r} of this run "
        f"is {taken.sha256[:12]}... (SHA-256 of model.safetensors). {fix}"
    )


def _check_numbers(folder: Path, manifest: "Manifest", checkpoint: Path) -> dict[str, bytes]:
    """The bundle's graphs by target, which must state the numbers of the checkpoint, whatever wrote them."""
    from saq_qat.train.checkpoint import newest_checkpoint
    from saq_qat_export.proof.numbers.prove import compare_contents, describe_differences
    from saq_qat_runtime.bundle.files import read_verified

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
