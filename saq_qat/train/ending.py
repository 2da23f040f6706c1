"""How a training ended, in its log: the last line of every run that was not killed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from saq_qat.errors import ArtifactError, DivergedError, RecipeError, SaqError
from saq_qat.train.state import Training
from saq_qat.train.stop import TrainingStoppedError

__all__ = ["logged_end"]


@contextmanager
def logged_end(training: Training) -> Iterator[None]:
    """Log why the training in this context ended before its end: ``stopped``, ``diverged`` or ``failed``.

    The line stands behind the last checkpoint, so that a training that goes on from there drops it. One that
    is refused where it stands, for its recipe or its checkpoint, changes nothing of the run.
    """
    start = training.position
    try:
        yield
    except TrainingStoppedError:
        _log(training, "stopped", "a signal")
        raise
    except DivergedError as error:
        _log(training, "diverged", str(error))
        raise
    except (ArtifactError, RecipeError) as error:
        if training.position != start:
            _log(training, "failed", str(error))
        raise
    except Exception as error:  # passed on; the log says why, whatever it was
        _log(training, "failed", str(error) or type(error).__name__)
        raise


def _log(training: Training, event: str, reason: str) -> None:
    # A full disk, which refuses this line too, is often why a training fails; that is what must be told.
    with suppress(SaqError):
        training.write_log(event, reason=reason)
