"""Networks with random weights and hard numbers, each as model.onnx and golden.npz in a folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from saq_qat_export.bundle.golden import golden_codes
from tests.export.networks import built_in, smooth_images

__all__ = ["NETWORKS", "write_folders"]

SIDE = 32
NETWORKS = {
    "resnet20-w4a4": ("resnet20", 4),
    "resnet20-w8a8": ("resnet20", 8),
    "vit_micro-w4a4": ("vit_micro", 4),
    "vit_micro-w8a8": ("vit_micro", 8),
}


def write_folders(root: Path) -> Iterator[Path]:
    """One folder a network; golden codes of two images are the integer reference's."""
    images = smooth_images(2, SIDE, seed=1).numpy()
    for name, (model, bits) in NETWORKS.items():
        found = built_in(model, bits, bits, SIDE)
        codes, logits = golden_codes(found.view, found.graph, images)
        folder = root / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(found.graph.content)
        arrays = {"inputs": images, "logits": logits, **codes}
        np.savez_compressed(folder / "golden.npz", **arrays)  # type: ignore[arg-type]  # its stubs take no mapping of arrays
        yield folder
