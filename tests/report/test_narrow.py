"""Whatever stands in a table is found again in eighty columns."""

from hypothesis import given
from hypothesis import strategies as st

from saq_qat.report.narrow import table_lines
from saq_qat.report.tables import Histogram, Table
from saq_qat_runtime.report.narrow import fitted

WORD = st.text("abcdefgh", min_size=1, max_size=12)
WORDS = st.lists(WORD, min_size=1, max_size=12).map(" ".join)


@given(st.lists(st.tuples(WORD, *[WORD] * 7, WORDS), min_size=1, max_size=5), st.integers(46, 90))
def test_a_table_fits_and_loses_no_word(rows: list[tuple[str, ...]], width: int) -> None:
    table = Table(("", *"1234567", "what"), tuple(rows), (0, 8))
    lines = table_lines(table, width)
    assert max(map(len, lines)) <= width
    printed = " ".join(lines).split()
    for row in rows:
        for cell in row:
            assert all(word in printed for word in cell.split())


def test_columns_without_room_stand_below_with_the_names_again() -> None:
    table = Table(("name", "first", "second"), (("a", "1" * 30, "2" * 30), ("b", "3", "4")))
    above, below = "\n".join(table_lines(table, 40)).split("\n\n")
    assert "first" in above and "second" not in above and "second" in below
    assert [line.split()[0] for line in below.splitlines()[1:]] == ["a", "b"]


def test_pictures_are_left_out_of_text() -> None:
    table = Table(("name", "picture"), (("a", Histogram("M0", "", (0, 1), "title")),), note="a note")
    assert table_lines(table)[-1] == "a note" and "M0" not in "".join(table_lines(table))


@given(st.lists(st.tuples(st.integers(0, 6), WORDS), max_size=6))
def test_long_lines_go_on_below_deeper_and_short_ones_stay(parts: list[tuple[int, str]]) -> None:
    lines = [" " * indent + words for indent, words in parts]
    found = fitted(lines, 40)
    assert max(map(len, found), default=0) <= 40
    assert " ".join(found).split() == " ".join(lines).split()
    assert [line for line in found if line in lines] == [line for line in lines if len(line) <= 40]


def test_a_path_longer_than_a_line_stays_whole() -> None:
    path = "/" + "x" * 100
    assert path in "\n".join(fitted([f"  saq-qat export {path}"])).split()
