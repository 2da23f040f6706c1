"""The layers and quantized tensors of a bundle as tables, block by block."""

from saq_qat.report.blocks import block_table
from saq_qat.report.collect import Collected
from saq_qat_runtime.bundle.records import LayerRecord, TensorRecord
from saq_qat_runtime.report.narrow import WIDTH
from saq_qat_runtime.report.text import NOT_MEASURED

__all__ = ["cpu_lines", "layer_lines", "tensor_lines"]


def cpu_lines(known: Collected) -> list[str]:
    """On which CPUs any session gives the trained codes; nothing without a bundle for CPUs."""
    if known.manifest is None or "onnxruntime" not in known.manifest.models:
        return []
    return ["", f"CPUs: {known.manifest.cpu.elsewhere}"]


def layer_lines(known: Collected, *, fold: bool = True) -> list[str]:
    """Weights and inputs, each as ``bits: codes``, and what runs as integer."""
    if known.manifest is None:
        return ["no bundle yet"]
    header = ("layer", "op", "weights", "inputs", "runs as")
    rows = list(map(_layer, known.manifest.layers))
    return block_table(header, rows, left=(0, 1, 4), fold=fold, width=WIDTH)


def tensor_lines(known: Collected, *, fold: bool = True) -> list[str]:
    """Bits, codes, scale and offset of every quantized tensor; ranges where blocks are alike."""
    if known.manifest is None:
        return ["no bundle yet"]
    rows = [_tensor(tensor) for tensor in known.manifest.tensors]
    if all(tensor.offset is None for tensor in known.manifest.tensors):
        header = ("tensor", "bits", "codes", "stored as", "scale")
        return block_table(header, [row[:-1] for row in rows], left=(0, 3), fold=fold)
    table = block_table(
        ("tensor", "bits", "codes", "stored as", "scale", "offset"), rows, left=(0, 3), fold=fold
    )
    return [*table, "", "value = scale * code + offset; the offset is learned, and its part is in the biases"]


def _layer(layer: LayerRecord) -> tuple[str, ...]:
    return (
        layer.name,
        layer.op,
        _grid(layer.weight_bits, layer.weight_grid),
        _grid(layer.input_bits, layer.input_grid),
        "integer" if layer.integer else f"float: {layer.reason}",
    )


def _tensor(tensor: TensorRecord) -> tuple[str | float, ...]:
    codes = f"{tensor.code_min - tensor.zero_point}..{tensor.code_max - tensor.zero_point}"
    shift = "" if tensor.offset is None else tensor.offset
    return tensor.name, str(tensor.bits), codes, tensor.dtype, tensor.scale, shift


def _grid(bits: int | None, codes: str | None) -> str:
    return NOT_MEASURED if bits is None or codes is None else f"{bits}: {codes}"
