"""Images: where they come from, how they are prepared, and in which order training meets them."""

from saq_qat.data.batches import steps_per_epoch, train_batches, val_batches
from saq_qat.data.open import ImageData, open_data

__all__ = ["ImageData", "open_data", "steps_per_epoch", "train_batches", "val_batches"]
