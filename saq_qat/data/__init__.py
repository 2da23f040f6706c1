"""Images: where they come from, how they are prepared, and in which order training meets them."""

from saq_qat.data.batches import steps_per_epoch, train_batches, val_batches
from saq_qat.data.open import ImageData, open_data
from saq_qat.data.transforms import Preprocessing

__all__ = ["ImageData", "Preprocessing", "open_data", "steps_per_epoch", "train_batches", "val_batches"]
