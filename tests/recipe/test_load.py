"""From a file to a recipe: every error at once, with its place, and one spelling for every value."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import dump_recipe, load_recipe, parse_recipe
from saq_qat.recipe.schema import QuantizedStage, Saq, Sgd


@pytest.fixture
def refuse(text: str) -> Callable[[str, str], str]:
    """The message for the small recipe with ``old`` replaced by ``new``."""

    def message(old: str, new: str) -> str:
        assert old in text
        with pytest.raises(RecipeError) as caught:
            parse_recipe(text.replace(old, new), "recipe.yaml")
        return str(caught.value)

    return message


def test_reads_a_file_and_fills_in_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8-sig")  # a byte order mark is accepted
    recipe = load_recipe(path)
    assert recipe.name == "small"
    assert isinstance(recipe.train.optimizer, Sgd)
    assert recipe.train.optimizer.weight_decay == 1e-4
    stage = recipe.train.stages[1]
    assert isinstance(stage, QuantizedStage) and isinstance(stage.method, Saq)
    assert stage.method.case == 3


def test_a_missing_file_names_itself_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such recipe; 'saq-qat init'"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)


def test_text_that_is_not_utf8_is_placed(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"version: 1\nname: caf\xe9\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:2:10: not UTF-8"):
        load_recipe(path)


def test_a_typo_is_placed_and_corrected(refuse: Callable[[str, str], str]) -> None:
    assert refuse("momentum: 0.9", "momentun: 0.9") == (
        "recipe.yaml:13:5: train.optimizer.momentun: unknown key; did you mean 'momentum'?"
    )


def test_a_key_like_no_other_gets_the_list_of_keys(refuse: Callable[[str, str], str]) -> None:
    message = refuse("name: resnet20", "name: resnet20, xyz: 1")
    assert message == (
        "recipe.yaml:3:25: model.xyz: unknown key; known: name, arguments, pretrained, pretrained_strict"
    )


def test_all_errors_come_at_once_in_the_order_of_the_file(text: str) -> None:
    broken = text.replace("name: small", "name: ''").replace("kind: sgd", "kind: sgdm")
    broken = broken.replace("bits: 4", "bits: 9", 1).replace("epochs: 2", "epoch: 2").replace("1e-2", "-1")
    with pytest.raises(RecipeError) as caught:
        parse_recipe(broken, "r")
    places = [line.split(": ")[0:2] for line in str(caught.value).splitlines()]
    assert places == [
        ["r:2:1", "name"],
        ["r:7:12", "quant.weight.bits"],
        ["r:12:5", "train.optimizer.kind"],
        ["r:15:7", "train.stages.0"],
        ["r:16:7", "train.stages.0.epoch"],
        ["r:18:7", "train.stages.1"],
        ["r:19:7", "train.stages.1.epoch"],
        ["r:20:7", "train.stages.1.lr"],
    ]


def test_a_missing_key_points_at_its_section_and_says_what_it_is(refuse: Callable[[str, str], str]) -> None:
    assert refuse("  batch_size: 64\n", "") == (
        "recipe.yaml:9:1: train: needs the key 'batch_size' "
        "(Images of one optimizer step, over all processes)"
    )
    assert refuse("version: 1\n", "").startswith("recipe.yaml:1:1: needs the key 'version'")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "kind: sgd",
            "kind: adam",
            "optimizer.kind: must be 'sgd' or 'adamw' (got 'adam'); did you mean 'adamw'?",
        ),
        ("    kind: sgd\n", "", "train.optimizer: needs the key 'kind': 'sgd' or 'adamw'"),
        ("kind: digits", "kind: 3", "'synthetic' or 'memory' (got 3)"),
        ("kind: digits", "kind: [digits]", "'synthetic' or 'memory' (got a list of 1)"),
        ("rho: 0.1", "rho: 0.1, digits: 1", "train.stages.1.method.digits: unknown key"),
        (
            "{kind: saq, rho: 0.1}",
            "plain",
            "stages.1.method: must be a section of keys and values (got 'plain')",
        ),
    ],
)
def test_sections_told_apart_by_kind_have_clean_paths(
    refuse: Callable[[str, str], str], old: str, new: str, expected: str
) -> None:
    assert expected in refuse(old, new)


@pytest.mark.parametrize(
    ("new", "rule"),
    [
        ("lr: 0", "must be greater than 0 (got 0)"),
        ("lr: -0.1", "must be greater than 0 (got -0.1)"),
        ("lr: 1e300", "must be at most 1e+18 (got 1e+300)"),
        ("lr: .inf", "must be a finite number (got inf)"),
        ("lr: .nan", "must be a finite number (got nan)"),
        ("lr: '0.1'", "must be a number (got '0.1')"),
        ("lr: true", "must be a number (got true)"),
        ("lr: ${HOME}", "must be a number (got '${HOME}')"),
        ("lr:", "must be a number (got null)"),
    ],
)
def test_a_wrong_value_names_the_rule_and_what_was_found(
    refuse: Callable[[str, str], str], new: str, rule: str
) -> None:
    assert refuse("lr: 0.1", new) == f"recipe.yaml:17:7: train.stages.0.lr: {rule}"


@pytest.mark.parametrize("value", ["on", "yes", "'true'", "1", "null"])
def test_only_true_and_false_are_truth_values(text: str, value: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.deterministic: must be true or false"):
        parse_recipe(text, "r", [f"train.deterministic={value}"])


@pytest.mark.parametrize("key", ["seed", "version", "quant.edge_bits", "train.stages.1.method.case"])
@pytest.mark.parametrize("value", ["true", "1.0", "'1'", "null"])
def test_only_whole_numbers_are_whole_numbers(text: str, key: str, value: str) -> None:
    with pytest.raises(RecipeError, match=f"{key}: must be a whole number"):
        parse_recipe(text, "r", [f"{key}={value}"])


@pytest.mark.parametrize("spelling", ["1e-4", "1.0e-4", "0.0001", "1E-4", "+.0001"])
def test_every_spelling_of_a_float_is_the_same_float(text: str, spelling: str) -> None:
    stage = parse_recipe(text.replace("1e-2", spelling), "r").train.stages[1]
    assert isinstance(stage, QuantizedStage) and stage.lr == 1e-4


def test_an_integer_is_accepted_as_a_float(text: str) -> None:
    stage = parse_recipe(text.replace("1e-2", "1"), "r").train.stages[1]
    assert isinstance(stage, QuantizedStage)
    assert (stage.lr, type(stage.lr)) == (1.0, float)


def test_arguments_of_the_model_are_plain_values_of_any_type(text: str) -> None:
    given_text = text.replace("name: resnet20", "name: a:b, arguments: {n: 1, x: 1.5, b: false, s: on}")
    assert parse_recipe(given_text, "r").model.arguments == {"n": 1, "x": 1.5, "b": False, "s": "on"}
    with pytest.raises(
        RecipeError, match=r"model\.arguments\.n: must be true, false, a number or text"
    ) as caught:
        parse_recipe(text.replace("name: resnet20", "name: a:b, arguments: {n: [1]}"), "r")
    assert len(str(caught.value).splitlines()) == 1


def test_a_later_version_asks_for_a_newer_saq_qat_and_nothing_else(refuse: Callable[[str, str], str]) -> None:
    message = refuse("version: 1", "version: 2\nnovelty: 3")
    assert message.startswith("recipe.yaml:1:1: version: 2 needs a newer saq-qat; saq-qat ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- version: 1\n", "version\n"])
def test_what_is_no_section_is_no_recipe(text: str) -> None:
    with pytest.raises(RecipeError, match=r"^r:1:1: (empty|a recipe is a section)"):
        parse_recipe(text, "r")


def test_relative_paths_and_variables_stay_as_written(text: str) -> None:
    given_text = text.replace("name: resnet20", 'name: resnet20, pretrained: "../${HOME}/w.pth"')
    assert parse_recipe(given_text, "r").model.pretrained == "../${HOME}/w.pth"


def test_a_dumped_recipe_reads_back_equal(text: str) -> None:
    recipe = parse_recipe(text, "r", ["data.mean=[0.5]", "train.stages.1.method.efficient={tau: 3}"])
    assert parse_recipe(dump_recipe(recipe), "dumped") == recipe


@given(
    st.dictionaries(
        st.sampled_from(["a", "null", "1", "on", "~"]),
        st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    ),
    st.floats(min_value=1e-300, max_value=1e18),
)
def test_any_values_survive_dumping(arguments: dict[str, bool | int | float | str], lr: float) -> None:
    text = "version: 1\nname: a\nmodel: {name: b}\ndata: {kind: digits}\ntrain: {batch_size: 1, optimizer: "
    text += "{kind: adamw}, stages: [{kind: float, epochs: 1, lr: 1}]}"
    recipe = parse_recipe(text, "r")
    stage = recipe.train.stages[0].model_copy(update={"lr": lr})
    recipe = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"arguments": arguments}),
            "train": recipe.train.model_copy(update={"stages": (stage,)}),
        }
    )
    assert parse_recipe(dump_recipe(recipe), "dumped") == recipe


@given(st.text(max_size=300))
def test_any_text_gives_a_recipe_or_a_recipe_error(garbage: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(garbage, "r")
