"""`saq-qat verify`: the whole proof for a run, tensor by tensor."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.console import print_file, progress, resolve_run
from saq_qat.errors import ArtifactError, GateError

if TYPE_CHECKING:
    from saq_qat.train.choose import Choice
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
    as_json: Annotated[bool, typer.Option("--json", help="Print verify.json instead of text.")] = False,
) -> None:
    """Compare checkpoint, fake-quant network, deploy view, integer reference and the bundle's graphs: every
    number and every code.

    Exit code 1 if a hard comparison fails, 3 if the bundle is damaged or belongs to another checkpoint.
    """
    from saq_qat_export.proof.fixes import failed_checks, flip_fix
    from saq_qat_export.proof.prove import ProofSize

    folder = resolve_run(run)
    size = ProofSize(code_images, top1_images or None)
    verified = _verify(folder, bundle or folder / "export", checkpoint, size)
    if as_json:
        print_file(verified.report)
    else:
        _print(verified)
    for reason in verified.absent:
        typer.echo(reason, err=as_json)
    failed = failed_checks(verified.proof.comparisons)
    if failed:
        fix = flip_fix(verified.proof.comparisons, biases_learned=verified.form == "deploy")
        hint = f"\nThe {fix}" if fix else ""
        raise GateError(f"Not proved: {'; '.join(failed)}. Every number is in {verified.report}.{hint}")


def _print(verified: "_Verified") -> None:
    from saq_qat.cli.proof_text import print_comparisons, print_flips, print_tensors
    from saq_qat_runtime.report.narrow import fitted

    for line in fitted([str(verified.choice)]):
        typer.echo(line)
    print_tensors(verified.proof)
    print_flips(verified.proof, verified.manifest.labels)
    typer.echo("")
    print_comparisons(verified.proof)


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
    from saq_qat_export.proof.lowered import lower_run
    from saq_qat_export.proof.verification import Verification, write_verification
    from saq_qat_export.verify import verify_bundle
    from saq_qat_runtime.bundle.manifest import Manifest, bundle_sha256

    with progress("verify") as shown:
        shown.say(f"verify {folder}")
        manifest, digest = Manifest.load(place), bundle_sha256(place)
        asked = checkpoint or checkpoint_with(folder, manifest.checkpoint_sha256)
        choice = choose_checkpoint(folder, asked)
        _check_checkpoint(place, manifest, choice)
        verified = verify_bundle(
            place,
            folder / "checkpoints" / asked,
            lambda tensorrt: lower_run(folder, asked, tensorrt=tensorrt),
            size,
            lambda step: shown.advance(note=step),
        )
        restored = verified.lowered.restored
        report = folder / "report" / "verify.json"  # before the text, whose reader may leave early
        write_verification(Verification.of(verified.proof, restored.checkpoint_sha256, digest), report)
        shown.advance(note="done")
    return _Verified(choice, manifest, verified.proof, restored.form, list(verified.absent), report)


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
