"""The networks of the table, trained once for all tests."""

from collections.abc import Callable

import pytest

from tests.gate.harness import Trained, train


@pytest.fixture(scope="session")
def trained_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """The run of a network of the table, trained when it is first asked for."""
    made: dict[str, Trained] = {}

    def get(name: str) -> Trained:
        if name not in made:
            made[name] = train(name, tmp_path_factory.mktemp("gate") / name)
        return made[name]

    return get
