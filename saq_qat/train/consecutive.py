"""How far the gradient turns from one step to the next, at the steps that are logged."""

from collections.abc import Iterable

from torch import Tensor, nn

from saq_qat.optim.gradients import cosine

__all__ = ["ConsecutiveGradients"]


class ConsecutiveGradients:
    """Holds the gradient of a step while the next one is made, where that will be logged, and not otherwise.

    Gradients are those that the optimizer was given: of the method's objective, over all processes. None of
    them is copied, but an inner product needs both, so the older one takes its memory through the whole of
    such a step. After a resume the first one is not known, so the first line lacks its cosine.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._before: list[Tensor] | None = None

    def after_step(self, *, finite: bool, logged: bool, next_logged: bool) -> float | None:
        """Cosine of the angle between this step's gradient and the one before; None where either is missing.

        Args:
            finite: whether the step was made; one that was skipped has no gradient.
            logged, next_logged: whether this step's line is written, and the next one's.
        """
        own = [p.grad for p in self._parameters if p.grad is not None] if finite else []
        angle = None
        if logged and own and self._before is not None and len(own) == len(self._before):
            angle = cosine(own, self._before).item()
        self._before = own if own and next_logged else None
        return angle
