"""Whatever becomes of the process that tries cases is told, with the seed, and the other cases are tried."""

import pytest

from tests.fuzz.supervise import LONGEST_SILENCE, tried
from tests.fuzz.traps import TRAPS


@pytest.mark.parametrize(("place", "told_as"), [(place, told_as) for place, (told_as, _) in enumerate(TRAPS)])
def test_a_fault_is_told_with_its_seed_and_the_rest_is_tried(
    place: int, told_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAP", str(place))
    told = tried("traps", 40, cases=4, silence=4.0 if told_as.endswith("no answer") else LONGEST_SILENCE)
    (where,) = told.findings
    assert where.startswith(told_as)
    assert told.findings[where].seed == 41
    assert told.cases == 4


def test_a_surface_that_cannot_be_opened_is_no_surface_without_findings() -> None:
    with pytest.raises(RuntimeError, match="no case could begin"):
        tried("nowhere", 0, cases=3)
