"""Images to prove networks on: the user's own where the environment names a folder, else synthetic ones."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.export.networks import smooth_images

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def photos(count: int, side: int, *, seed: int = 0) -> Tensor:
    """``count`` normalised images (3, side, side) of the folder SAQ_QAT_IMAGES, spread over its files."""
    folder = os.environ.get("SAQ_QAT_IMAGES")
    if folder is None:
        return smooth_images(count, side, seed=seed)
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
    assert len(files) >= count, f"SAQ_QAT_IMAGES={folder} holds {len(files)} images; {count} are needed"
    chosen = islice(files, seed, None, max(1, (len(files) - seed) // count))
    return torch.stack([_load(path, side) for path in islice(chosen, count)])


def _load(path: Path, side: int) -> Tensor:
    with Image.open(path) as image:
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        square = image.convert("RGB").crop((left, top, left + short, top + short)).resize((side, side))
    pixels = torch.from_numpy(np.asarray(square, np.float32)).permute(2, 0, 1) / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean.reshape(3, 1, 1)) / deviation.reshape(3, 1, 1)
