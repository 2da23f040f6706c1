"""`path=value` sets one value; errors that it causes are attributed to it."""

import pytest

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import AdamW, FloatStage, QuantizedStage


def test_values_are_yaml_and_lists_go_by_index(text: str) -> None:
    recipe = parse_recipe(
        text,
        "r",
        [
            "train.stages.0.epochs=3",
            "train.stages.1.lr=1e-4",
            "data.mean=[0.5]",
            "name=on",
            "deploy.pack_weights=false",
        ],
    )
    first, second = recipe.train.stages
    assert isinstance(first, FloatStage) and first.epochs == 3
    assert isinstance(second, QuantizedStage) and second.lr == 1e-4
    assert recipe.data.mean == (0.5,)
    assert recipe.name == "on"
    assert recipe.deploy.pack_weights is False


def test_the_last_override_of_a_key_wins(text: str) -> None:
    assert parse_recipe(text, "r", ["seed=1", "seed=2"]).seed == 2


def test_a_whole_section_can_be_replaced_and_then_changed(text: str) -> None:
    recipe = parse_recipe(text, "r", ["train.optimizer={kind: adamw}", "train.optimizer.weight_decay=0"])
    assert recipe.train.optimizer == AdamW(kind="adamw", weight_decay=0.0)


def test_an_empty_value_is_null(text: str) -> None:
    float_only = ["quant=", "train.stages=[{kind: float, epochs: 1, lr: 1}]"]
    assert parse_recipe(text, "r", float_only).quant is None


def test_python_stays_text(text: str) -> None:
    recipe = parse_recipe(text, "r", ["model.pretrained=__import__('os').getcwd()"])
    assert recipe.model.pretrained == "__import__('os').getcwd()"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.optimizer.momentun=0.9", "train.optimizer.momentun: unknown key; did you mean 'momentum'?"),
        ("quant.weihgt.bits=3", "quant.weihgt: unknown key; did you mean 'weight'?"),
        ("seed=x", "seed: must be a whole number (got 'x')"),
        ("seed", "must be path=value, such as train.stages.0.lr=0.01"),
        ("=3", "must be path=value, such as train.stages.0.lr=0.01"),
        ("train..lr=3", "must be path=value, such as train.stages.0.lr=0.01"),
        ("train.stages.2.lr=1", "train.stages is a list; its items are 0 to 1 (got '2')"),
        ("train.stages.-1.lr=1", "train.stages is a list; its items are 0 to 1 (got '-1')"),
        ("train.stages.first.lr=1", "train.stages is a list; its items are 0 to 1 (got 'first')"),
        ("train.batch_size.x=1", "train.batch_size is no section but the value 64"),
        ("data.mean=[1", "not YAML: expected"),
        (
            "seed=!!python/name:os.system",
            "the tag !!python/name:os.system is not allowed; a recipe is plain data",
        ),
        ("version=2", "version: 2 needs a newer saq-qat"),
    ],
)
def test_errors_name_the_override(text: str, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r", [override])
    assert str(caught.value).startswith(f"override {override!r}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=" + "9" * 5000, "a number of more than 400 characters"),
        ("seed=0x" + "f" * 5000, "a number of more than 400 characters"),
        ("train.stages.0.lr=" + "1" * 5000 + ".5", "a number of more than 400 characters"),
        ("train.stages." + "9" * 5000 + ".lr=1", "train.stages is a list; its items are 0 to 1"),
        ("name=" + "n" * 5000, "name: must have at most 100 characters"),
    ],
)
def test_an_override_of_thousands_of_characters_is_a_short_sentence(
    text: str, override: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r", [override])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 700


def test_errors_elsewhere_keep_their_lines(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.replace("seed", "").replace("momentum", "momentun"), "r", ["data.kind=x"])
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["r:13:5", "override 'data.kind=x'"]
