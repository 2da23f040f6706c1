"""The `data` section: which images, and how they become the network's input."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from saq_qat.recipe.schema.base import (
    BrokenRule,
    Classes,
    Count,
    Deviation,
    Finite,
    Probability,
    Section,
    Side,
)

__all__ = [
    "Cifar",
    "Data",
    "Digits",
    "ImageFolder",
    "Memory",
    "Parquet",
    "RandAugment",
    "RandomErasing",
    "Synthetic",
]


class RandAugment(Section):
    """torchvision's RandAugment (Cubuk et al., 2019), behind crop and mirroring."""

    operations: Count = Field(default=2, description="Operations that are drawn for each image.")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(
        default=9, description="How strong each of them is, from 0 to 30."
    )


class RandomErasing(Section):
    """torchvision's random erasing (Zhong et al., 2017): a rectangle becomes the mean colour."""

    probability: Probability = Field(default=0.25, description="Share of the images that lose a rectangle.")


class _Images(Section):
    image_size: Side = Field(default=32, description="Side of the square network input, in pixels.")
    augmentation: Literal["none", "crop_flip", "resized_crop_flip"] = Field(
        default="none",
        description="Training augmentation. crop_flip: pad by an eighth, crop at random, mirror half of "
        "the images; resized_crop_flip: ImageNet's crop of 8 to 100 % of the image's area, of an aspect of "
        "3:4 to 4:3, mirror half.",
    )
    rand_augment: RandAugment | None = Field(
        default=None, description="Change colours and shapes of training images at random; not if null."
    )
    random_erasing: RandomErasing | None = Field(
        default=None, description="Cover rectangles of training images; not if null."
    )
    mean: tuple[Finite, ...] | None = Field(
        default=None, description="Mean of each channel, of pixels in 0..1; that of the data set if null."
    )
    std: tuple[Deviation, ...] | None = Field(
        default=None, description="Standard deviation of each channel; that of the data set if null."
    )
    workers: int = Field(
        default=0, ge=0, le=512, description="Loader processes; the batches are the same for any number."
    )
    held_out: Count | None = Field(
        default=None,
        description="Judge on this many training images, a fixed choice that is never trained on, in place "
        "of the validation images: for searches, which these must not decide. They are left alone if null.",
    )
    train_limit: Count | None = Field(
        default=None, description="Use only this many training images, a fixed choice; all if null."
    )
    val_limit: Count | None = Field(
        default=None, description="Use only this many validation images, a fixed choice; all if null."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            yield (
                "std",
                "mean and std must have one number for each channel, "
                f"but mean has {len(self.mean)} and std has {len(self.std)}",
            )


def _crop_fits(image_size: int, resize: int | None) -> Iterator[BrokenRule]:
    if resize is not None and resize < image_size:
        yield (
            "resize",
            f"the centre crop of image_size {image_size} needs a short side of at least {image_size} "
            f"(got {resize})",
        )


class Digits(_Images):
    """Handwritten digits that come with scikit-learn: 1797 grey scans of 8x8 pixels in 10 classes."""

    kind: Literal["digits"] = Field(description="Handwritten digits that come with scikit-learn.")
    image_size: Side = Field(
        default=16, description="Side of the square network input, in pixels; the scans have 8x8."
    )


class Cifar(_Images):
    """CIFAR-10 or CIFAR-100: colour images of 32x32 pixels."""

    kind: Literal["cifar10", "cifar100"] = Field(description="CIFAR-10 or CIFAR-100.")
    root: str = Field(
        min_length=1,
        description="Folder of the extracted CIFAR archive, binary or python, relative to the working "
        "directory.",
    )
    labels: Literal["fine", "coarse"] = Field(
        default="fine",
        description="Of CIFAR-100: 100 classes, or 20; the latter from the binary archive.",
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        yield from super().broken_rules()
        if self.labels == "coarse" and self.kind == "cifar10":
            yield "labels", "CIFAR-10 has one kind of labels, but labels is 'coarse', of CIFAR-100"


class ImageFolder(_Images):
    """Images of your own, or ImageNet: one folder for each class."""

    kind: Literal["imagefolder"] = Field(description="Images in one folder for each class.")
    root: str = Field(
        min_length=1,
        description="Folder with train/<class>/* and val/<class>/*, relative to the working directory.",
    )
    image_size: Side = Field(default=224, description="Side of the square network input, in pixels.")
    resize: Side | None = Field(
        default=None,
        description="Short side before the centre crop of evaluation; image_size * 8 / 7 if null.",
    )
    val_folder: str = Field(
        default="val", min_length=1, description="Name of the folder that is validated on, in place of val."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        yield from super().broken_rules()
        yield from _crop_fits(self.image_size, self.resize)


class Parquet(_Images):
    """Images in Parquet files as the Hugging Face hub keeps them."""

    kind: Literal["parquet"] = Field(description="Images in Parquet files, as the Hugging Face hub has them.")
    root: str = Field(
        min_length=1,
        description="Folder with train-*.parquet or train/*.parquet, and the same of the validation split, "
        "there or below; relative to the working directory.",
    )
    image_size: Side = Field(default=224, description="Side of the square network input, in pixels.")
    resize: Side | None = Field(
        default=None,
        description="Short side before the centre crop of evaluation; if null, images become squares without "
        "a crop.",
    )
    image_column: str | None = Field(default=None, description="Column of images; image or img if null.")
    label_column: str | None = Field(default=None, description="Column of labels; label if null.")
    val_split: str | None = Field(
        default=None, description="Split to validate on; validation, or else test, if null."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        yield from super().broken_rules()
        yield from _crop_fits(self.image_size, self.resize)


class Synthetic(_Images):
    """Random images with learnable labels, for tests and timings."""

    kind: Literal["synthetic"] = Field(description="Random images with learnable labels.")
    classes: Classes = Field(default=10, description="Number of labels.")
    train_size: Count = Field(default=256, description="Number of training images.")
    val_size: Count = Field(default=64, description="Number of validation images.")


class Memory(_Images):
    """Images that a program held in memory: what a bundle says of a network that no recipe trained."""

    kind: Literal["memory"] = Field(
        description="Images that a program handed to saq_qat.export; no recipe can be trained on them."
    )


Data = Annotated[Digits | Cifar | ImageFolder | Parquet | Synthetic | Memory, Field(discriminator="kind")]
