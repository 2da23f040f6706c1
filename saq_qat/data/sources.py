"""Data sets that are arrays: handwritten digits, CIFAR, and synthetic images for smoke tests."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saq_qat.data.cifar_binary import binary_form, find_binary, read_binary
from saq_qat.data.counter import Stream, uniforms
from saq_qat.data.subset import stratified_order
from saq_qat.data.transforms import Pixels, fit
from saq_qat.errors import DataError, SetupError
from saq_qat.recipe.schema import Cifar, Digits, Synthetic

__all__ = ["Arrays", "cifar_arrays", "digits_arrays", "squares", "synthetic_arrays"]

_DIGITS_FOR_VALIDATION = 360
_CIFAR = {
    "cifar10": ("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ("CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclass(frozen=True)
class Arrays:
    """Pixels uint8 [N, S, S, 3], of CIFAR with S = 32, of the others with S = image_size; labels int64 [N];
    mean and std of pixels in 0..1."""

    train_pixels: Pixels
    train_labels: NDArray[np.int64]
    val_pixels: Pixels
    val_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def squares(images: Pixels, image_size: int) -> Pixels:
    """uint8 [N, H, W] or [N, H, W, 3] -> [N, image_size, image_size, 3], resized as evaluation does."""
    if images.shape[1:] == (image_size, image_size, 3):
        return images
    return np.stack([fit(Image.fromarray(image).convert("RGB"), image_size, None) for image in images])


def digits_arrays(data: Digits) -> Arrays:
    """scikit-learn's 1,797 scans of 8x8 pixels (Alpaydin and Kaynak, 1998): 1,437 train, 360 validate."""
    table = np.loadtxt(_digits_file(), delimiter=",", dtype=np.int64)
    scans = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1]
    pixels = squares(scans, data.image_size)
    order = stratified_order(labels, seed=0)
    val, train = np.sort(order[:_DIGITS_FOR_VALIDATION]), np.sort(order[_DIGITS_FOR_VALIDATION:])
    classes = tuple(str(digit) for digit in range(10))
    # Measured on the training images at 16x16; the deviation is 0.375 at 8x8, before any smoothing.
    mean, std = (0.305,) * 3, (0.318,) * 3
    return Arrays(pixels[train], labels[train], pixels[val], labels[val], classes, mean, std)


def _digits_file() -> Path:
    """The table that scikit-learn carries; read as it is, since importing scikit-learn takes a second."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise SetupError("data.kind: digits are scikit-learn's. Install it: pip install scikit-learn")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise SetupError(
            f"'{file}' is missing, where scikit-learn keeps its digits. Install scikit-learn again."
        )
    return file


def cifar_arrays(data: Cifar) -> Arrays:
    """CIFAR-10 or -100 (Krizhevsky, 2009); 50,000 to train, 10,000 to validate.

    From the binary archive where it is there, else from the python one, whose files torchvision unpickles
    only after their MD5 sums were found right. Both hold the same images in the same order, and name the
    same classes: the order of the labels is theirs, which is alphabetical (of CIFAR-10: airplane, automobile,
    bird, cat, deer, dog, frog, horse, ship, truck).

    Raises DataError if there is neither, or one that is changed or cut short.
    """
    form = binary_form(data.kind, data.labels)
    folder = find_binary(Path(data.root), form)
    if folder is None:
        return _cifar_of_python(data)
    train, val, classes = read_binary(folder, form)
    _, mean, std = _CIFAR[data.kind]
    return Arrays(
        train.pixels,
        train.labels,
        val.pixels,
        val.labels,
        classes,
        mean,
        std,
    )


def _cifar_of_python(data: Cifar) -> Arrays:
    from torchvision import datasets  # a second, which other data need not wait

    if data.labels == "coarse":
        raise DataError(
            "data.labels: coarse are read from the binary archive of CIFAR-100 alone, and "
            f"'{data.root}' has none: no cifar-100-binary. Get it from https://www.cs.toronto.edu/~kriz/cifar.html."
        )
    name, mean, std = _CIFAR[data.kind]
    dataset = getattr(datasets, name)
    try:
        train, val = (dataset(data.root, train=part, download=False) for part in (True, False))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"data.root must hold the extracted archive of {data.kind}: "
            f"'{Path(data.root) / dataset.base_folder}' is missing, incomplete or changed ({error}), and the "
            f"binary archive's {binary_form(data.kind, data.labels).folder} is not there. "
            f"Nothing is downloaded by itself: get {dataset.url} and extract it into '{data.root}'."
        ) from error
    return Arrays(
        train.data,
        np.asarray(train.targets, np.int64),
        val.data,
        np.asarray(val.targets, np.int64),
        tuple(train.classes),
        mean,
        std,
    )


def synthetic_arrays(data: Synthetic) -> Arrays:
    """Noisy copies of one coarse 4x4 colour pattern per class, shifted in brightness; the same everywhere."""
    total = data.train_size + data.val_size
    labels = np.arange(total, dtype=np.int64) % data.classes
    patterns = uniforms(Stream.SYNTHETIC, 0, 0, np.arange(data.classes), 4 * 4 * 3).reshape(-1, 4, 4, 3)
    coarse = squares(np.rint(patterns * 255).astype(np.uint8), data.image_size).astype(np.float64)
    noise = uniforms(Stream.SYNTHETIC, 0, 1, np.arange(total), data.image_size**2 * 3)
    brightness = uniforms(Stream.SYNTHETIC, 0, 2, np.arange(total), 1)[:, :, None, None]
    noise = noise.reshape(total, data.image_size, data.image_size, 3)
    pixels = np.rint(0.6 * coarse[labels] + 64 * noise + 32 * brightness).astype(np.uint8)
    classes = tuple(f"class {label}" for label in range(data.classes))
    split = data.train_size
    half = (0.5,) * 3
    return Arrays(pixels[:split], labels[:split], pixels[split:], labels[split:], classes, half, (0.25,) * 3)
