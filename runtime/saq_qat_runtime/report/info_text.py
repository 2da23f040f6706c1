"""A bundle's manifest as one page of text."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES

__all__ = ["info_text"]

_WIDTH = 80
_LABELS_SHOWN = 8


def info_text(manifest: Manifest, folder: Path) -> list[str]:
    """Network, proof, files and layers, in lines of at most 80 columns but for long names."""
    return [
        line for text in _sentences(manifest, folder) for line in wrap(text, _WIDTH, subsequent_indent="  ")
    ]


def _sentences(manifest: Manifest, folder: Path) -> Iterator[str]:
    settings, sizes, gate = manifest.preprocessing, manifest.sizes, manifest.gate
    yield f"{manifest.name}, exported by {manifest.created_by}"
    yield f"checkpoint {manifest.checkpoint_sha256[:12]}..."
    labels = ", ".join(manifest.labels[:_LABELS_SHOWN])
    yield f"{len(manifest.labels)} labels: {labels}{', ...' if len(manifest.labels) > _LABELS_SHOWN else ''}"
    resize = "straight to it" if settings.resize is None else f"short side to {settings.resize}, centre crop"
    yield (
        f"images: {settings.image_size} x {settings.image_size} pixels, {settings.channels} channels; "
        f"resized {resize}"
    )
    passed = sum(comparison.passed for comparison in gate.comparisons)
    verdict = "passed" if gate.passed else "FAILED: these integers are not proved to be the trained ones"
    yield f"proof: {verdict} ({passed}/{len(gate.comparisons)} comparisons hold)"
    yield f"codes: {manifest.cpu.elsewhere}"
    quantized = [layer for layer in manifest.layers if layer.integer]
    bits = sorted({layer.weight_bits for layer in quantized if layer.weight_bits is not None})
    yield (
        f"layers: {len(quantized)}/{len(manifest.layers)} planned as integer, weights of "
        f"{', '.join(map(str, bits)) or 'no'} bits"
    )
    yield (
        f"{sizes.parameters:,} parameters: {sizes.float_bytes / 1e6:.2f} MB in float32, "
        f"{sizes.theoretical_bits / 8e6:.2f} MB at their bits"
    )
    for target, model in manifest.models.items():
        yield f"for {target}: {model.name}, {model.bytes / 1e6:.2f} MB, sha256 {model.sha256[:12]}..."
    for flavour, name in ENGINE_FILES.items():
        if (folder / name).is_file():
            yield f"engine of {flavour}: {name}, {(folder / name).stat().st_size / 1e6:.2f} MB"
    limits = manifest.deploy.thresholds
    yield (
        f"deployment may lose {limits.max_top1_drop:g} points of top-1 and change "
        f"{100 * limits.max_flip_rate:g} % of answers"
    )
