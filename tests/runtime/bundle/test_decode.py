import json
from dataclasses import dataclass

import pytest

from saq_qat_runtime.bundle.decode import decode, parse_json
from saq_qat_runtime.errors import ModelError

LONG = 10**400
"""Beyond every float."""


@dataclass(frozen=True)
class Sample:
    count: int = 0
    share: float = 0.0
    names: tuple[int | str, ...] = ()


def test_a_key_that_is_there_twice_is_found_at_once_among_many() -> None:
    keys = ",".join(f'"k{number}":1' for number in range(200_000))
    with pytest.raises(ModelError, match="duplicate key 'k199999'"):
        parse_json(f'{{{keys},"k199999":1}}', "file")  # a search for each key would take an hour


@pytest.mark.parametrize("number", [LONG, -LONG, 2**1024])
def test_an_integer_beyond_every_float_is_named_and_cut(number: int) -> None:
    with pytest.raises(ModelError, match=r"^file\.share: must be a finite float, got -?\d+\.\.\.\.$"):
        decode(Sample, {"share": number}, "file")


def test_the_largest_float_may_be_written_as_an_integer() -> None:
    assert decode(Sample, {"share": 10**308}, "file").share == 1e308


@pytest.mark.parametrize("number", [LONG, 2**63, -(2**63) - 1])
def test_an_integer_of_more_than_64_bits_is_named_and_cut(number: int) -> None:
    with pytest.raises(ModelError, match=r"^file\.count: expected an integer of 64 bits, got ") as caught:
        decode(Sample, {"count": number}, "file")
    assert len(str(caught.value)) < 130


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_an_integer_of_64_bits_is_taken(number: int) -> None:
    assert decode(Sample, {"count": number}, "file").count == number


def test_of_many_unknown_fields_a_few_are_named_and_the_rest_counted() -> None:
    value = {f"k{number:04}": 1 for number in range(1000)} | {"a" * 5000: 1}
    with pytest.raises(ModelError, match=r"'k0006' and 993 more\. Known: count, share, names") as caught:
        decode(Sample, value, "file")
    assert len(str(caught.value)) < 250


def test_a_long_name_that_is_there_twice_is_cut() -> None:
    name = json.dumps("a" * 5000)
    with pytest.raises(ModelError, match=r"duplicate key 'a+\.\.\.") as caught:
        parse_json(f"{{{name}:1,{name}:1}}", "file")
    assert len(str(caught.value)) < 200
