"""Knowledge distillation: the predictions of a trained network as targets beside the labels."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Distillation", "soft_cross_entropy"]


@dataclass(frozen=True)
class Distillation:
    """A teacher, and how its predictions and the labels share the loss.

    Attributes:
        teacher: maps images (N, C, H, W) to logits (N, classes); stays in the mode it is in, untrained.
        weight: of the cross entropy with the teacher's softmax.
        label_weight: of the loss of the labels.
        temperature: see ``soft_cross_entropy``.
    """

    teacher: nn.Module
    weight: float = 1.0
    label_weight: float = 1.0
    temperature: float = 1.0

    def combined(self, label_loss: Tensor, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The weighted sum of ``label_loss`` (0-dim) and the teacher's term, 0-dim."""
        soft = soft_cross_entropy(logits, teacher_logits, self.temperature)
        return self.label_weight * label_loss + self.weight * soft


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 times the mean over images of -sum_k p_k log q_k, 0-dim; logits are (N, classes).

    p and q are the softmax of the teacher's and of the network's logits, both divided by T. The factor T^2
    keeps the size of the gradient (Hinton, Vinyals and Dean, 2015, section 2). At T = 1 this is the loss of
    PROFIT's code (Park and Yoo, 2020).
    """
    targets = (teacher_logits / temperature).softmax(dim=1)
    return temperature**2 * F.cross_entropy(logits / temperature, targets)
