"""What training batches cost, as text."""

from saq_qat.data.cost import DataCost

__all__ = ["data_cost_text"]


def data_cost_text(cost: DataCost) -> list[str]:
    """How long batches take alone, and which steps they would slow down."""
    prepared = f"{cost.workers} loader processes" if cost.workers else "the training process itself"
    return [
        f"a batch of {cost.batch_size} images: {1000 * cost.batch:.2f} ms",
        f"images/s: {cost.images_per_second:,.0f}",
        f"before the first one: {cost.first:.2f} s",
        f"an epoch of {cost.epoch_batches} batches: {cost.epoch:.2f} s",
        f"a twentieth of a training step of {20000 * cost.batch:.0f} ms, more of shorter ones",
        "",
        f"mean of {cost.batches} batches behind the first, prepared by {prepared}, {cost.device}",
    ]
