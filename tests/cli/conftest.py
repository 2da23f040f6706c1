"""The command line, run in this process as a user would."""

import signal
from collections.abc import Callable, Iterator

import pytest

from saq_qat.cli.main import main

SaqQat = Callable[..., int]


@pytest.fixture
def saq_qat(monkeypatch: pytest.MonkeyPatch) -> Iterator[SaqQat]:
    """Run ``saq-qat`` with these arguments and give its exit code."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["saq-qat", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    yield run
    signal.signal(signal.SIGTERM, before)
