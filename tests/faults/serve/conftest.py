"""Servers of the tiny network, as the tests of serving have them."""

from pathlib import Path

import pytest

from saq_qat_runtime.serve.settings import Bounds, ServeSettings
from tests.faults.serve.hostile import Target
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, binary_request
from tests.runtime.serve.conftest import (  # noqa: F401  fixtures, found by name
    Start,
    integer_bundle,
    integer_session,
    launch,
    start,
    start_once,
)


@pytest.fixture(scope="session")
def narrow(start_once: Start, integer_bundle: Path) -> Address:  # noqa: F811  the fixture of the line above
    """A server that waits little for each client, and takes bodies of 1 MiB."""
    bounds = Bounds(body_bytes=1 << 20, header_seconds=0.7, body_seconds=0.7, send_seconds=0.7)
    return start_once(integer_bundle, ServeSettings(threads=1, drain_seconds=0.0, bounds=bounds))


@pytest.fixture
def target(narrow: Address) -> Target:
    return Target(narrow, "tiny", *binary_request(images(1)))
