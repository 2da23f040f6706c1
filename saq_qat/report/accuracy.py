"""Accuracy of one network in all its forms, side by side; what was not measured says why."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from saq_qat.report.collect import Collected
from saq_qat_runtime.bench.record import FLOAT, STATIC_INT8

__all__ = ["AccuracyRow", "accuracy_rows", "flip_interval"]

_QUANTILE = 1.959963984540054  # of the standard normal distribution at 97.5 %


@dataclass(frozen=True)
class AccuracyRow:
    """One form of the network.

    Attributes:
        top1, top5: percent; None if not measured.
        images: how many were classified; None where the log does not say.
        flips: images classified otherwise than by the fake-quant network; None if not compared.
        source: where the numbers come from, or why there are none.
    """

    form: str
    top1: float | None
    top5: float | None
    images: int | None
    flips: int | None
    source: str


def accuracy_rows(known: Collected) -> tuple[AccuracyRow, ...]:
    """Float, fake-quant, deploy view, ONNX Runtime, then the baselines of the latency measurement."""
    return (_float_row(known), *_quantized_rows(known), *_baseline_rows(known))


def flip_interval(flips: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share of flipped predictions, each from 0 to 1."""
    share, weight = flips / images, _QUANTILE**2 / images
    centre = share + weight / 2
    spread = _QUANTILE * math.sqrt(share * (1 - share) / images + weight / images / 4)
    return max(0.0, (centre - spread) / (1 + weight)), min(1.0, (centre + spread) / (1 + weight))


def _float_row(known: Collected) -> AccuracyRow:
    epochs = [line for line in known.log if line.get("event") == "epoch" and _is_float(line)]
    if epochs:
        last = epochs[-1]
        return AccuracyRow(
            "float", last["top1"], last.get("top5"), None, None, "last epoch of the float stage"
        )
    pretrained = known.recipe.model.pretrained
    why = "the recipe has no float stage" + (
        "" if pretrained is None else "; it starts from model.pretrained"
    )
    return AccuracyRow("float", None, None, None, None, f"not measured: {why}")


def _is_float(epoch: dict[str, Any]) -> bool:
    """Whether the network was float in that epoch; a statistics stage has the form of the stage before."""
    return bool(epoch.get("form", epoch.get("stage")) == "float")


def _quantized_rows(known: Collected) -> Iterator[AccuracyRow]:
    if known.proof is None:
        yield from _rows_of_checkpoint(known)
        yield _deployed_row(known)
        return
    found = known.proof.agreement
    yield AccuracyRow("fake-quant", found.fake_quant_top1, None, found.images, None, "verify")
    yield AccuracyRow("deploy view", found.view_top1, None, found.images, None, "verify")
    yield AccuracyRow("ONNX Runtime", found.engine_top1, None, found.images, found.flips, "verify")


def _rows_of_checkpoint(known: Collected) -> Iterator[AccuracyRow]:
    """Fake-quant and deploy view of the report's checkpoint, by eval, else by the training that saved it."""
    found, checkpoint = known.evaluation, known.checkpoint
    if checkpoint is not None and checkpoint.form == "float":
        for form in ("fake-quant", "deploy view"):
            yield AccuracyRow(form, None, None, None, None, "not measured: train the quantized stage")
    elif found is not None:
        named = (("fake-quant", found.network), ("deploy view", found.deployed))
        for form, own in named:
            if own is not None:
                yield AccuracyRow(form, own.top1, own.top5, own.count, None, "eval")
            else:
                yield AccuracyRow(form, None, None, None, None, "it has none")
    elif checkpoint is not None:
        source = f"training, checkpoint {checkpoint.name} (step {checkpoint.step})"
        for form, top1 in (("fake-quant", checkpoint.top1), ("deploy view", checkpoint.deploy_top1)):
            missing = "not measured: run saq-qat eval"
            yield AccuracyRow(form, top1, None, None, None, missing if top1 is None else source)
    else:
        for form in ("fake-quant", "deploy view"):
            yield AccuracyRow(form, None, None, None, None, "not measured: the run has no such checkpoint")


def _deployed_row(known: Collected) -> AccuracyRow:
    """ONNX Runtime as far as it is known without verify."""
    bench = known.bench
    found = None if bench is None else bench.candidate(bench.bundle)
    if bench is not None and found is not None and found.top1 is not None:
        source = "bench; flips are not counted: run saq-qat verify"
        return AccuracyRow("ONNX Runtime", found.top1, None, bench.accuracy_images, None, source)
    command = "saq-qat verify" if known.manifest is not None else "saq-qat export, then saq-qat verify"
    return AccuracyRow("ONNX Runtime", None, None, None, None, f"not measured: run {command}")


def _baseline_rows(known: Collected) -> Iterator[AccuracyRow]:
    for name in (FLOAT, STATIC_INT8):
        found = None if known.bench is None else known.bench.candidate(name)
        if found is None or known.bench is None:
            yield AccuracyRow(name, None, None, None, None, "not measured: run saq-qat bench")
        else:
            source = "bench; trained weights without quantizers"
            yield AccuracyRow(name, found.top1, None, known.bench.accuracy_images, None, source)
