"""Bundles of a small network, as the tests of the runtime have them."""

from tests.runtime.conftest import (  # noqa: F401  fixtures, found by name
    bundle,
    expected_codes,
    expected_logits,
    network_bytes,
)
