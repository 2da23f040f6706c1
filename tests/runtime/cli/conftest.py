"""The runtime's command line, run in this process as a user would; and a bundle with its images."""

import signal
from collections.abc import Callable, Iterator

import pytest

from saq_qat_runtime.cli.main import main
from tests.runtime.verify.conftest import photos

__all__ = ["SaqQatRuntime", "photos"]

SaqQatRuntime = Callable[..., int]


@pytest.fixture
def saq_qat_runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[SaqQatRuntime]:
    """Run `saq-qat-runtime` with these arguments and give its exit code."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["saq-qat-runtime", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    yield run
    signal.signal(signal.SIGTERM, before)
