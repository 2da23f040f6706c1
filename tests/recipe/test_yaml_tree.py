"""YAML is read as plain data with places; whatever is more than data is refused, fast."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.errors import RecipeError
from saq_qat.recipe.yaml_tree import read_yaml


def test_places_are_those_of_keys_and_items() -> None:
    tree = read_yaml("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "f")
    assert tree.value == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert tree.places == {
        (): "f:1:1",
        ("a",): "f:1:1",
        ("a", "b"): "f:2:3",
        ("a", "c"): "f:3:3",
        ("a", "c", 0): "f:4:7",
        ("a", "c", 1): "f:5:7",
        ("a", "c", 1, "d"): "f:5:8",
    }
    assert tree.nearest(("a", "c", 1, "e", 5)) == ("a", "c", 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2026-11-23", "2026-11-23"),
        ("<<", "<<"),
        ("=", "="),
        ("010", 10),
        ("1e-4", 1e-4),
        ("true", True),
        ("null", None),
        ("", None),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = read_yaml(text, "f").value
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: the key 'a' stands here twice; first at f:1:1"),
        ("a: 1\n\tb: 2\n", "f:2:1: not YAML: a tab cannot indent; use spaces"),
        ("a: 1\n b: 2\n", "f:2:3: not YAML: mapping values are not allowed here"),
        ("a: [1, 2\n", "f:2:1: not YAML"),
        ("a: \x01\n", "f:1:4: the character '\\x01' is not allowed in YAML"),
        ("---\na: 1\n---\nb: 1\n", "f:3:1: a second document starts here; a recipe is one"),
        ("%YAML 1.1\n---\na: on\n", "recipes are YAML 1.2; remove the %YAML line"),
        ("1: a\n", "f:1:1: a key must be text"),
        ("{[1]: a}\n", "f:1:2: a key must be text"),
        ("a: !!int b\n", "f:1:4: 'b' is not of the type int"),
        ("a: !!set {b}\n", "f:1:4: the tag !!set is not allowed"),
        ("a: !mine b\n", "f:1:4: the tag !mine is not allowed"),
        ("a: &x 1\nb: *x\n", "f:1:4: anchors and aliases"),
        ("a: *x\n", "f:1:4: anchors and aliases"),
    ],
)
def test_more_than_plain_data_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "f")
    assert message in str(caught.value)


def test_python_tags_execute_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    text = f"a: !!python/object/apply:pathlib.Path.touch ['{canary}']\n"
    with pytest.raises(RecipeError, match=r"the tag !!python/object/apply:.* is not allowed"):
        read_yaml(text, "f")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 2000, "nested deeper than"),
        ("a: " + "{a: " * 2000, "nested deeper than"),
        ("- " * 2000, "nested deeper than"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "anchors and aliases"),
        ("a: [" + "1, " * 30_000 + "1]", "more than 10000 values"),
        ("a: " + "x" * 2_000_000, "longer than 1000000 characters"),
    ],
)
def test_bombs_are_refused_at_once(text: str, message: str) -> None:
    start = time.process_time()  # by the clock, a busy machine is slow at anything
    with pytest.raises(RecipeError, match=message):
        read_yaml(text, "f")
    assert time.process_time() - start < 5


@given(st.text(alphabet="ab:{}[]-,?!&*#|>'\"%@` \n\t\\0123.e~<=", max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        tree = read_yaml(text, "f")
    except RecipeError as error:
        assert str(error).startswith("f:")
    else:
        assert () in tree.places
