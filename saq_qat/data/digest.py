"""Which images a training sees, as one digest: the same wherever their folder lies."""

import hashlib
from pathlib import Path

from saq_qat.data.images import FileImages, Images, MemoryImages, WholeFileImages
from saq_qat.data.open import ImageData

__all__ = ["images_digest"]


def images_digest(data: ImageData) -> str:
    """SHA-256 over the labels of both splits, in their order, and over pixels in memory or names of files.

    Images of files are known by their names, without folders: reading a million of them would take longer
    than an epoch may.
    """
    digest = hashlib.sha256()
    for images in (data.train, data.val):
        digest.update(images.labels.tobytes())
        digest.update(_content(images))
    return digest.hexdigest()


def _content(images: Images) -> bytes:
    if isinstance(images, MemoryImages):
        return hashlib.sha256(images.pixels.tobytes()).digest()
    if isinstance(images, FileImages | WholeFileImages):
        return "\0".join(Path(str(path)).name for path in images.paths).encode("utf-8", "surrogateescape")
    return b""
