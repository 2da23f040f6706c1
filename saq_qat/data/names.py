"""What an image is called, for people to find it again."""

from pathlib import Path

from saq_qat.data.images import FileImages, Images
from saq_qat.recipe.schema import Data, ImageFolder

__all__ = ["image_names"]


def image_names(data: Data, validation: Images) -> tuple[str, ...]:
    """A name for each validation image, in their order.

    Of an image folder, the path below the folder of its split, with forward slashes: ``cat/12.jpg`` for
    ``root/val/cat/12.jpg``. Other images have no file of their own, and are called by their index.
    """
    if not isinstance(data, ImageFolder) or not isinstance(validation, FileImages):
        return tuple(map(str, range(len(validation))))
    split = Path(data.root) / ("train" if data.held_out is not None else data.val_folder)
    return tuple(_below(split, file) for file in validation.paths if isinstance(file, Path))


def _below(split: Path, file: Path) -> str:
    return file.relative_to(split).as_posix()
