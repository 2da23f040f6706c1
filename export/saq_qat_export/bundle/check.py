"""A bundle beside the graphs that were proved, the verdict of the proof and the golden images."""

import io

import numpy as np
import numpy.typing as npt

from saq_qat.errors import GateError
from saq_qat_export.bundle.golden import logits_tolerances
from saq_qat_export.bundle.manifest_check import check_manifest
from saq_qat_export.bundle.write import Bundle
from saq_qat_export.graph.onnx_graph import INPUT
from saq_qat_export.proof.lowered import Lowered
from saq_qat_export.proof.probe import probe_of
from saq_qat_export.proof.prove import Proof
from saq_qat_runtime.bundle.expected import Expected
from saq_qat_runtime.codes import CodeEngine, compare_answers
from saq_qat_runtime.recorded import from_arrays

__all__ = ["check_bundle"]

_AGAIN = "so no bundle was written. Export again; if it comes back, export wrote it wrong."


def check_bundle(
    bundle: Bundle,
    lowered: Lowered,
    proof: Proof,
    images: npt.NDArray[np.float32],
    *,
    allow_failed_gate: bool,
) -> None:
    """What is about to be written is what was proved, and says so.

    Args:
        images: float32 (N, C, H, W), those the golden samples are made of.

    Raises:
        GateError: naming the file, the field or the array that is another one.
    """
    _check_models(bundle, lowered)
    _check_gate(bundle, proof, allow_failed_gate=allow_failed_gate)
    check_manifest(bundle.manifest, bundle.files, lowered)
    _check_golden(bundle, images, lowered)
    _check_probes(bundle, lowered)
    _check_expected(bundle, proof)


def _check_models(bundle: Bundle, lowered: Lowered) -> None:
    for target, graph in lowered.shipped.items():
        name = bundle.manifest.models[target].name
        if bundle.files.get(name) != graph.content:
            raise GateError(f"The file for {target}, {name}, is not the graph that was proved, {_AGAIN}")


def _check_gate(bundle: Bundle, proof: Proof, *, allow_failed_gate: bool) -> None:
    gate = bundle.manifest.gate
    expected = {
        comparison.name: (comparison.hard, comparison.passed, comparison.compared, comparison.mismatches)
        for comparison in proof.comparisons
    }
    stated = {
        comparison.name: (comparison.hard, comparison.passed, comparison.compared, comparison.mismatches)
        for comparison in gate.comparisons
    }
    other = sorted(n for n in expected.keys() | stated.keys() if expected.get(n) != stated.get(n))
    if (gate.passed, gate.allowed_failed) != (proof.passed, allow_failed_gate and not proof.passed):
        other.append("passed")
    if other:
        raise GateError(
            f"The manifest's gate is not the verdict of the proof in {', '.join(other)}, {_AGAIN}"
        )


def _check_golden(bundle: Bundle, images: npt.NDArray[np.float32], lowered: Lowered) -> None:
    """Codes and logits are what the proved graph computes from the golden images, exactly."""
    codes, logits = probe_of(lowered.graph).run(images)
    record, expected = bundle.manifest.golden, {"inputs": images, "logits": logits, **codes}
    allowed = logits_tolerances(lowered.shipped, lowered.graph, images, logits)
    if record.logits_tolerance != allowed:
        raise GateError(f"logits_tolerance is {record.logits_tolerance}, and {allowed} is due, {_AGAIN}")
    with np.load(io.BytesIO(bundle.files[record.file.name])) as golden:
        found = {name: golden[name] for name in golden.files}
    for name in sorted(expected.keys() | found.keys()):
        own, other = expected.get(name), found.get(name)
        if own is None or other is None:
            raise GateError(
                f"The golden file has {'no' if other is None else 'a needless'} array {name!r}, {_AGAIN}"
            )
        if own.dtype != other.dtype or not np.array_equal(own, other):
            raise GateError(
                f"The golden file's {name!r} is not what the proved graph computes from its images, {_AGAIN}"
            )


def _check_probes(bundle: Bundle, lowered: Lowered) -> None:
    """The proved graph passes the self-test that ships, on this machine."""
    record = bundle.manifest.probes
    if record is None:
        return
    with np.load(io.BytesIO(bundle.files[record.file.name])) as arrays:
        samples = from_arrays({name: arrays[name] for name in arrays.files})
    exact_pairs = bool(lowered.graph.over_pair_bound)
    with CodeEngine(lowered.graph.content, samples, exact_pairs=exact_pairs) as engine:
        found = engine.run(INPUT, samples)
    failure = compare_answers(bundle.manifest.tensors, [(samples.answers, found)]).failure
    if failure:
        raise GateError(f"{record.file.name} is not what the proved graph computes, {_AGAIN} {failure}")


def _check_expected(bundle: Bundle, proof: Proof) -> None:
    """The answers are those that the proof counted; which images they belong to is the manifest's affair."""
    record, agreement = bundle.manifest.expected, proof.agreement
    expected = Expected.from_csv(bundle.files[record.name], len(bundle.manifest.labels), record.name)
    is_counted = not len(expected) or expected.top1 == agreement.fake_quant_top1
    if expected.predictions != agreement.fake_quant or not is_counted:
        raise GateError(
            f"{record.name} holds other answers than those of the fake-quant network in the proof, {_AGAIN}"
        )
