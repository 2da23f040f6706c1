from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.errors import ArtifactError
from saq_qat.report.predictions import Predictions, read_predictions, write_predictions
from saq_qat_runtime.bundle.files import file_sha256

# Whatever a file system allows in a name: quotes, commas, line feeds, bytes that are no UTF-8.
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(
    lambda name: f"{name}\udcff"
)
INDICES = st.integers(0, 10**6)
ROWS = st.lists(st.tuples(NAMES, INDICES, INDICES, INDICES), min_size=1, max_size=20)


def predictions(rows: list[tuple[str, int, int, int]]) -> Predictions:
    names, *columns = zip(*rows, strict=True)
    return Predictions(names, *(np.array(column, np.int64) for column in columns))


def assert_same(first: Predictions, second: Predictions) -> None:
    assert first.images == second.images
    assert first.labels.tolist() == second.labels.tolist()
    assert first.network.tolist() == second.network.tolist()
    assert (first.deployed is None) == (second.deployed is None)
    if first.deployed is not None and second.deployed is not None:
        assert first.deployed.tolist() == second.deployed.tolist()


@given(ROWS, st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int, int]], has_deployed: bool
) -> None:
    path = tmp_path_factory.mktemp("report") / "predictions.csv"
    own = predictions(rows) if has_deployed else replace(predictions(rows), deployed=None)
    digest = write_predictions(own, path)
    assert digest == file_sha256(path)
    assert_same(read_predictions(path, digest), own)


def test_the_file_is_a_plain_table(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.csv"
    own = predictions([("cat/1.jpg", 0, 1, 0), ('dog/"a",b.jpg', 1, 1, 1)])
    write_predictions(own, path)
    lines = ["image,label,fake_quant,deployed", "cat/1.jpg,0,1,0", '"dog/""a"",b.jpg",1,1,1', ""]
    assert path.read_text() == "\n".join(lines)
    write_predictions(replace(own, deployed=None), path)
    assert path.read_text().splitlines()[1] == "cat/1.jpg,0,1,"


def test_another_file_than_the_evaluation_is_about_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    digest = write_predictions(predictions([("a", 0, 1, 2)]), path)
    write_predictions(predictions([("a", 0, 1, 1)]), path)
    with pytest.raises(ArtifactError, match=r"not the file that its eval\.json is about"):
        read_predictions(path, digest)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"cannot be read: No such file .*Run 'saq-qat eval' again"):
        read_predictions(path, digest)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line must be"),
        ("image,label\n", "first line must be"),
        ("image,label,fake_quant,deployed\na,1\n", "row 2 has not 4 values"),
        ("image,label,fake_quant,deployed\na,1,x,\n", "invalid literal"),
        ("image,label,fake_quant,deployed\na,1,2,3\nb,1,2,\n", "invalid literal"),
        (f"image,label,fake_quant,deployed\na,{10**30},2,3\n", "too large"),
    ],
)
def test_a_damaged_file_is_told_of(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=said):
        read_predictions(path, file_sha256(path))


def test_columns_are_of_one_length() -> None:
    with pytest.raises(ValueError, match="each of 2 images"):
        Predictions(("a", "b"), np.zeros(2, np.int64), np.zeros(1, np.int64), None)
