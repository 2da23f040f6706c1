import pytest

from saq_qat_export.proof.steps import Steps


def test_steps_are_numbered_and_images_say_how_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 13.0, 20.0])
    monkeypatch.setattr("saq_qat_export.proof.steps.time.monotonic", lambda: next(clock))
    told: list[str] = []
    steps = Steps(told.append, 2)
    steps("codes")
    steps("predictions")
    steps.images(30, 100)
    steps.images(100, 100)
    assert told == [
        "1/2 codes",
        "2/2 predictions",
        "30/100 images, 7 s left, 2/2 predictions",
        "100/100 images, 0 s left, 2/2 predictions",
    ]
