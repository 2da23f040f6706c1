"""expected.csv: what is written is read, and what is damaged is refused with its row."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat_runtime.bundle.expected import EXPECTED_FILE, Expected, read_expected
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import ModelError

LABELS = 7
CHARACTERS = st.characters(exclude_characters="\0/", exclude_categories=["Cs"])
NAMES = st.text(CHARACTERS, min_size=1).filter(lambda name: name not in (".", ".."))
ROWS = st.lists(
    st.tuples(NAMES, st.integers(0, LABELS - 1), st.integers(0, LABELS - 1)),
    unique_by=lambda row: row[0],
    min_size=1,
)


@given(ROWS)
def test_what_is_written_is_read(rows: list[tuple[str, int, int]]) -> None:
    expected = Expected(*zip(*rows, strict=True))
    assert Expected.from_csv(expected.to_csv(), LABELS) == expected
    assert expected.top1 == 100 * sum(label == answer for _, label, answer in rows) / len(rows)


def test_names_that_are_no_utf8_come_back_as_they_were() -> None:
    expected = Expected((b"caf\xe9.png".decode("utf-8", "surrogateescape"),), (0,), (1,))
    assert b"caf\xe9.png,0,1" in expected.to_csv()
    assert Expected.from_csv(expected.to_csv(), LABELS) == expected


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (b"", r"must begin with image,label,prediction, got ''"),
        (b"image,label\n", r"must begin with image,label,prediction, got 'image,label'"),
        (b"image,label,prediction\na,1\n", r"row 2: needs 3 values, has 2"),
        (b"image,label,prediction\na,1,2\nb,7,0\n", r"row 3: '7' must be the index of one of 7 labels"),
        (b"image,label,prediction\na,-1,2\n", r"row 2: '-1' must be the index"),
        (b"image,label,prediction\na,1,2.0\n", r"row 2: '2.0' must be the index"),
        ("image,label,prediction\na,1,\u0663\n".encode(), r"row 2: '\u0663' must be the index"),
        (b"image,label,prediction\na,1,9999999999999999999\n", r"must be the index"),
        (b"image,label,prediction\n/etc/passwd,1,2\n", r"row 2: '/etc/passwd' must be a path below"),
        (b"image,label,prediction\nx/../../y,1,2\n", r"must be a path below"),
        (b"image,label,prediction\n,1,2\n", r"row 2: '' must be a path below"),
        (b"image,label,prediction\na,1,2\na,1,2\n", r"names 1 images twice"),
        (b'image,label,prediction\n"a,1,2\n', r"is no CSV file"),
    ],
)
def test_damage_is_named_with_its_row(rows: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        Expected.from_csv(rows, LABELS)


def test_a_bundle_gives_its_answers_only_as_they_were_exported(bundle: Path) -> None:
    manifest = Manifest.load(bundle)
    expected = read_expected(bundle, manifest)
    assert expected.labels == (0, 1, 2, 3)
    (bundle / EXPECTED_FILE).write_bytes(expected.to_csv().replace(b"0.png", b"9.png"))
    with pytest.raises(ModelError, match=r"expected\.csv was changed after export"):
        read_expected(bundle, manifest)
