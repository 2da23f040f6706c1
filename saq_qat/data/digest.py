"""Which images a training sees, as digests: the same wherever their folder lies."""

import hashlib
from pathlib import Path

from saq_qat.data.images import FileImages, Images, MemoryImages, WholeFileImages
from saq_qat.data.open import ImageData
from saq_qat.data.transforms import EncodedImage, ImageFile
from saq_qat_runtime.bundle.regular_file import read_regular

__all__ = ["files_digest", "images_digest"]

_FILES_READ = 1000


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


def files_digest(data: ImageData) -> str | None:
    """SHA-256 over what image files hold: all of a split, or a thousand spread evenly over more.

    None where all images are pixels in memory, which ``images_digest`` knows.
    """
    splits = [images for images in (data.train, data.val) if isinstance(images, FileImages | WholeFileImages)]
    digest = hashlib.sha256()
    for images in splits:
        there = len(images.paths)
        read_here = min(there, _FILES_READ)
        for number in range(read_here):
            digest.update(_held(images.paths[number * there // read_here]))
    return digest.hexdigest() if splits else None


def _held(file: ImageFile) -> bytes:
    """The digest of a file; a file that cannot be read is told by whoever decodes it."""
    try:
        content = file.content if isinstance(file, EncodedImage) else read_regular(file)
    except OSError as error:
        return f"not read: {error.strerror}".encode()
    return hashlib.sha256(content).digest()


def _content(images: Images) -> bytes:
    if isinstance(images, MemoryImages):
        return hashlib.sha256(images.pixels.tobytes()).digest()
    if isinstance(images, FileImages | WholeFileImages):
        return "\0".join(Path(str(path)).name for path in images.paths).encode("utf-8", "surrogateescape")
    return b""
