"""The study's file: what is wrong is named with its place, and both forms of overrides mean the same."""

from pathlib import Path

import pytest

from saq_qat.analysis.study.schema import Study, load_study
from saq_qat.errors import RecipeError
from saq_qat.recipe.load import load_recipe

ROOT = Path(__file__).parents[3]
STUDIES = sorted((ROOT / "configs/studies").glob("*.yaml"))

TEXT = """version: 1
name: small
recipe: recipe.yaml
seeds: [0, 1]
arms:
  plain: {overrides: {"train.stages.1.method": {kind: plain}}}
  saq: {overrides: ["train.stages.1.lr=1e-5"], seeds: [0]}
comparisons:
  - {of: saq, against: plain}
"""


def read(folder: Path, text: str) -> Study:
    path = folder / "study.yaml"
    path.write_text(text)
    return load_study(path)


def test_arms_have_the_seeds_of_the_study_or_their_own(tmp_path: Path) -> None:
    study = read(tmp_path, TEXT)
    assert study.seeds_of("plain") == (0, 1)
    assert study.seeds_of("saq") == (0,)


def test_a_section_of_overrides_means_what_its_lines_on_the_command_line_mean(tmp_path: Path) -> None:
    values = """{"train.stages.1.method": {kind: saq, rho: 1e-5, perturb: [weight, norm]}, data.val_limit: 7,
                 deploy.targets: [onnxruntime], data.augmentation: "none", model.pretrained: null}"""
    texts = """["train.stages.1.method={kind: saq, rho: 1e-5, perturb: [weight, norm]}", data.val_limit=7,
               "deploy.targets=[onnxruntime]", data.augmentation=none, model.pretrained=null]"""
    recipes = [
        load_recipe(
            ROOT / "configs/quickstart.yaml",
            read(tmp_path, TEXT.replace('["train.stages.1.lr=1e-5"]', overrides)).arms["saq"].overrides,
        )
        for overrides in (values, texts)
    ]
    assert recipes[0] == recipes[1]
    assert recipes[0].data.val_limit == 7


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("seeds: [0, 1]", "seeds: [0, 0]", "study.yaml:4:1: seeds: names a seed twice"),
        ("seeds: [0, 1]", "sedes: [0, 1]", "unknown key; did you mean 'seeds'?"),
        ("seeds: [0]", "seeds: [x]", "arms.saq.seeds.0: must be a whole number (got 'x')"),
        ("  saq:", "  s/aq:", "'s/aq' is no name"),
        ("against: plain", "against: plane", "'plane' is no arm; the arms are plain, saq"),
        ("against: plain", "against: saq", "compares 'saq' with itself"),
        ("train.stages.1.lr=1e-5", "seed=3", "'seed' is set by the study"),
        ("seeds: [0, 1]", "seeds: [0]\noverrides: {seed: 3}", "overrides: 'seed' is set by the study"),
        ("train.stages.1.lr=1e-5", "name=x", "'name' is set by the study"),
        ("seeds: [0]}", "equal_compute: it}", "'it' is no arm"),
        ("seeds: [0]}", "equal_compute: saq}", "arms.saq.equal_compute: names the arm itself"),
        ("seeds: [0]}", "seeds: [7]}", "'saq' and 'plain' have no seed in common"),
        (
            "arms:\n",
            "arms:\n  half: {equal_compute: third}\n  third: {equal_compute: plain}\n",
            "arms.half.equal_compute: 'third' makes such a claim itself",
        ),
        ('["train.stages.1.lr=1e-5"]', "3", "arms.saq.overrides: must be a list (got 3)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, before: str, after: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(tmp_path, TEXT.replace(before, after, 1))
    assert told in str(error.value)


def test_a_file_that_is_not_there_or_is_no_section_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such study"):
        load_study(tmp_path / "study.yaml")
    with pytest.raises(RecipeError, match="a study is a section"):
        read(tmp_path, "- 1")
