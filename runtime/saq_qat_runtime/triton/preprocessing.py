"""preprocessing.json: every step from an image's file to the tensor that a client sends, in order.

A client that takes these steps with Pillow and NumPy sends the bits that `Session.predict` computes from.
"""

from typing import Any

from saq_qat_runtime.bundle.records import Preprocessing, TensorSpec
from saq_qat_runtime.preprocess import FORMATS

__all__ = ["client_steps"]


def client_steps(settings: Preprocessing, tensor: TensorSpec) -> dict[str, Any]:
    """What to do to an image, as JSON has it: the steps in order, and the tensor that they end in.

    tensor: the model's input.
    """
    return {
        "input": {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "layout": "NCHW",
            "shape": list(tensor.shape),
        },
        "steps": [
            {
                "step": "decode",
                "formats": list(FORMATS),
                "exif_orientation": "applied",
                "transparency": "dropped",
                "channel_order": "RGB" if settings.channels == 3 else "L",
                "dtype": "uint8",
            },
            _resize(settings),
            {
                "step": "crop",
                "where": "centre",
                "height": settings.image_size,
                "width": settings.image_size,
                "left_and_upper_edge": "half of what is left over, rounded half to even",
            },
            {"step": "scale", "dtype": "float32", "divide_by": 255},
            {
                "step": "normalise",
                "dtype": "float32",
                "formula": "(value - mean) / std",
                "mean": list(settings.mean),
                "std": list(settings.std),
            },
        ],
    }


def _resize(settings: Preprocessing) -> dict[str, Any]:
    how = {"interpolation": "bilinear", "antialias": True, "dtype": "uint8"}
    if settings.resize is None:
        return {"step": "resize", "sides": "both", "pixels": settings.image_size, **how}
    long_side = "pixels * long // short, in whole numbers"
    return {"step": "resize", "sides": "short", "pixels": settings.resize, "long_side": long_side, **how}
