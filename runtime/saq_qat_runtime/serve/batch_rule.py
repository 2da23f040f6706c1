"""May images run together? Measured on this machine, before the first request is answered.

An answer must not depend on which other requests are in its batch. Integer kernels give that by
construction; float kernels may add in another order at another batch size, which the engine does not promise
either way. So every batch size that requests can form is run when a model is loaded, with images at other
places than before, and compared with what each image gives alone. If one bit differs, the engine gets one
image at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saq_qat_runtime.errors import ClosedError
from saq_qat_runtime.serve.batcher import Floats

__all__ = ["BatchRule", "measure_batch_rule", "one_by_one", "probe_images"]


@dataclass(frozen=True)
class BatchRule:
    """together: whether several images run in one call of the engine.

    largest: batch size up to which it was measured. differing: the first batch size at which a logit differs
    from that of the image alone, None if none does.
    """

    together: bool
    largest: int
    differing: int | None = None

    @property
    def label(self) -> str:
        """The rule in words."""
        if self.largest == 1:
            return "one image a run, as asked for"
        if self.together:
            return f"up to {self.largest} images a run, equal in every bit to one image a run (measured)"
        return f"one image a run: at batch size {self.differing} this engine gives other bits (measured)"


def measure_batch_rule(
    run: Callable[[Floats], Floats], images: Floats, largest: int, stopping: Callable[[], bool]
) -> BatchRule:
    """Run `images`, each alone, then in batches of 2 to `largest`; `images` holds at least `largest`.

    Raises ClosedError as soon as `stopping`, between two runs.
    """

    def unless_stopping(batch: Floats) -> Floats:
        if stopping():
            raise ClosedError("The server is being stopped.")
        return run(batch)

    alone = one_by_one(unless_stopping)(images)
    for size in range(2, largest + 1):
        # Begins elsewhere at each size, so that an image is seen at many places of a batch.
        chosen = (np.arange(size) + size) % len(images)
        if unless_stopping(images[chosen]).tobytes() != alone[chosen].tobytes():
            return BatchRule(False, largest, size)
    return BatchRule(largest > 1, largest)


def one_by_one(run: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """`run` with one image at a time."""

    def run_each(images: Floats) -> Floats:
        return np.concatenate([run(images[index : index + 1]) for index in range(len(images))])

    return run_each


def probe_images(golden: Floats, largest: int) -> Floats:
    """The golden inputs and noise of their spread, `largest` images or more, never the same one twice."""
    generator = np.random.default_rng(0)
    count = max(0, largest - len(golden)) + 2
    noise = generator.normal(golden.mean(), golden.std() or 1.0, (count, *golden.shape[1:]))
    return np.concatenate([golden, noise.astype(np.float32)])
