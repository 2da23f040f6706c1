"""What logits are worth: accuracy, cross entropy, calibration."""

import numpy as np
import numpy.typing as npt

from saq_qat.analysis.study.quantities import Answers

__all__ = ["answers_of", "cross_entropy", "expected_calibration_error", "flips", "top1"]

Logits = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def answers_of(logits: Logits, labels: Labels, bins: int) -> Answers:
    """Accuracy, loss and calibration of logits (n, classes) for labels (n,)."""
    return Answers(
        top1(logits, labels),
        cross_entropy(logits, labels),
        expected_calibration_error(logits, labels, bins),
        len(labels),
    )


def top1(logits: Logits, labels: Labels) -> float:
    """Percent of labels (n,) that have the largest of their logits (n, classes)."""
    return 100.0 * int((logits.argmax(axis=1) == labels).sum()) / len(labels)


def cross_entropy(logits: Logits, labels: Labels) -> float:
    """Mean cross entropy in nats, of logits (n, classes) and labels (n,)."""
    return float(-_log_softmax(logits)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(logits: Logits, labels: Labels, bins: int) -> float:
    """Mean distance of confidence and accuracy over ``bins`` of equal width, from 0 to 1.

    Each bin counts by its images (Guo et al., 2017, Eq. 3). Confidence is the largest softmax probability;
    bin m holds those in ((m - 1) / bins, m / bins].
    """
    probabilities = np.exp(_log_softmax(logits))
    confidence = probabilities.max(axis=1)
    right = (logits.argmax(axis=1) == labels).astype(np.float64)
    where = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(where, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def flips(one: Logits, other: Logits) -> int:
    """Images, rows of both, to which the two give different classes."""
    return int((one.argmax(axis=1) != other.argmax(axis=1)).sum())


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
