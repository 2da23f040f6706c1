"""`saq-qat verify`: the whole ladder of proof for a run, tensor by tensor."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.console import progress, resolve_run
from saq_qat.errors import ArtifactError, GateError

if TYPE_CHECKING:
    from saq_qat.train.choose import Choice
    from saq_qat_export.proof.ladder import Rung
    from saq_qat_export.proof.lowered import Lowered
    from saq_qat_export.proof.prove import ProofSize
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
    """Compare fake-quant network, deploy view, integer reference and the bundle's graph, code by code.

    Exit code 1 if a rung fails, 3 if the bundle is damaged or belongs to another checkpoint.
    """
    from saq_qat.cli.ladder import print_flips, print_rungs, print_tensors
    from saq_qat.train.choose import checkpoint_with, choose_checkpoint
    from saq_qat_export.proof.lowered import lower_run
    from saq_qat_export.proof.prove import ProofSize, prove
    from saq_qat_export.proof.remedies import flip_remedy
    from saq_qat_export.proof.verification import Verification, write_verification
    from saq_qat_runtime.bundle.manifest import Manifest, bundle_sha256

    folder = resolve_run(run)
    with progress("verify") as shown:
        shown.say(f"verify {folder}")
        shown.advance(note="lowering the checkpoint again")
        place = bundle or folder / "export"
        manifest, digest = Manifest.load(place), bundle_sha256(place)
        asked = checkpoint or checkpoint_with(folder, manifest.checkpoint_sha256)
        choice = choose_checkpoint(folder, asked)
        _check_checkpoint(place, manifest, choice)
        lowered = lower_run(folder, asked, tensorrt="tensorrt" in manifest.models)
        _check_graphs(place, manifest, lowered, asked)
        size = ProofSize(code_images, top1_images or None)
        proof = prove(lowered, size, lambda step: shown.advance(note=step))
        shown.advance(note="engines that can run here")
        engines, absent = _engine_rungs(place, lowered, size)
        proof = replace(proof, rungs=(*proof.rungs, *engines))
        report = folder / "report" / "verify.json"  # before the text, whose reader may leave early
        write_verification(Verification.of(proof, lowered.restored.checkpoint_sha256, digest), report)
        shown.advance(note="done")
    typer.echo(str(choice))
    print_tensors(proof)
    print_flips(proof, manifest.labels)
    typer.echo("")
    print_rungs(proof)
    for reason in absent:
        typer.echo(reason)
    failed = [rung.name for rung in proof.rungs if not rung.passed]
    if failed:
        remedy = flip_remedy(proof.rungs, biases_learned=lowered.restored.form == "deploy")
        hint = f"\nThe {remedy}" if remedy else ""
        raise GateError(f"Not proved: {'; '.join(failed)}. Every number is in {report}.{hint}")


def _engine_rungs(bundle: Path, lowered: "Lowered", size: "ProofSize") -> "tuple[list[Rung], list[str]]":
    """A rung for each engine of the bundle that can run on this machine, and why the others cannot."""
    from saq_qat_export.proof.prove import prove_engine
    from saq_qat_runtime.errors import BackendUnavailable
    from saq_qat_runtime.session import Session
    from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES

    rungs, absent = [], []
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
            rungs.append(prove_engine(lowered, name, session.run, size))
    return rungs, absent


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


def _check_graphs(folder: Path, manifest: "Manifest", lowered: "Lowered", checkpoint: str) -> None:
    """The bundle's graphs must be, byte for byte, what the checkpoint exports to: one proof serves both."""
    for target, model in manifest.models.items():
        graph = lowered.shipped.get(target)
        if graph is None or model.sha256 != hashlib.sha256(graph.content).hexdigest():
            torch = manifest.versions.get("torch", "?")
            raise ArtifactError(
                f"{folder}: its graph {model.name} is not what checkpoint {checkpoint!r} exports to with "
                f"these packages; it was made by {manifest.created_by} with torch {torch}. "
                "Export again, or name the checkpoint it was made from."
            )
