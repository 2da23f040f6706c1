"""Arms differ only in what they name: every kind of difference is refused, and permitted once declared."""

from pathlib import Path

import pytest

from saq_qat.analysis.study.arms import comparison_kind, image_passes, passes_per_step, resolve_arms
from saq_qat.analysis.study.schema import Arm, Study
from saq_qat.errors import RecipeError
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import EfficientTraining, Plain, Sam, Saq
from tests.train.small_recipe import small_recipe

ROOT = Path(__file__).parents[3]
PLAIN = 'train.stages.1.method={"kind": "plain"}'


def resolve(**arms: Arm) -> None:
    study = Study(version=1, name="small", recipe="quickstart.yaml", seeds=(0,), arms=arms)
    resolve_arms(study, ROOT / "configs")


def refusal(**arms: Arm) -> str:
    with pytest.raises(RecipeError) as error:
        resolve(**arms)
    return str(error.value)


GUARDED = [
    ("data, schedule", "data.train_limit=500", "data.train_limit is None in 'a', 500 in 'b': another data"),
    ("data", "data.augmentation=crop_flip", "data.augmentation"),
    ("data, schedule", "train.batch_size=32", "train.batch_size is 64 in 'a', 32 in 'b'"),
    ("data", "train.mixing={mixup: 0.2}", "train.mixing"),
    ("weights", "model.name=preresnet20", "model.name is resnet20 in 'a', preresnet20 in 'b'"),
    ("weights", "model.pretrained=weights.pth", "another initial weights"),
    ("schedule", "train.stages.1.epochs=5", "another length of the schedule in steps"),
    ("schedule", "train.stages.0.warmup_epochs=2", "train.stages.0.warmup_epochs"),
    ("calibration", "quant.calibration_batches=9", "another calibration of the quantizers"),
    ("calibration", "quant.activation.initialise=max", "quant.activation.initialise"),
]


@pytest.mark.parametrize(("guard", "override", "told"), GUARDED, ids=[text for _, text, _ in GUARDED])
def test_an_override_alone_does_not_permit_another_experiment(guard: str, override: str, told: str) -> None:
    message = refusal(a=Arm(), b=Arm(overrides=(override,)))
    assert told in message
    assert f"arms.b.differs_in: [{guard}]" in message
    resolve(a=Arm(), b=Arm(overrides=(override,), differs_in=tuple(guard.split(", "))))
    resolve(a=Arm(differs_in=(override.partition("=")[0],)), b=Arm(overrides=(override,)))


def test_the_arm_that_changes_the_key_is_told_to_declare_it() -> None:
    message = refusal(a=Arm(overrides=("data.train_limit=500",)), b=Arm())
    assert "If it is meant: arms.a.differs_in: [data, schedule]" in message


def test_an_override_that_is_wrong_is_told_with_its_arm_and_one_of_all_arms_without() -> None:
    wrong = "train.stages.1.lrr=1"
    told = f"override '{wrong}': train.stages.1.lrr: unknown key"
    message = refusal(a=Arm(), b=Arm(overrides=(wrong, "data.train_limit=-1")))
    assert message.splitlines()[0].startswith(f"arms.b: {told}")
    assert all(line.startswith("arms.b: ") for line in message.splitlines())
    study = Study(
        version=1, name="s", recipe="quickstart.yaml", seeds=(0,), overrides=(wrong,), arms={"a": Arm()}
    )
    with pytest.raises(RecipeError) as error:
        resolve_arms(study, ROOT / "configs")
    assert str(error.value).startswith(told)


def test_another_guard_does_not_permit_it() -> None:
    assert "data.train_limit" in refusal(
        a=Arm(), b=Arm(overrides=("data.train_limit=500",), differs_in=("schedule", "weights", "calibration"))
    )


def test_what_an_override_names_may_differ_without_more() -> None:
    resolve(
        a=Arm(),
        b=Arm(overrides=(PLAIN,)),
        c=Arm(overrides=("train.stages.1.lr=0.1", "train.optimizer.nesterov=true", "quant.weight.bits=2")),
    )


def test_recipes_of_their_own_may_differ_only_in_what_is_declared() -> None:
    saq, sgd = (f"cifar10/resnet20-w4a4-{name}.yaml" for name in ("saq", "sgd"))
    assert "train.stages.0.method.kind is saq in 'a', plain in 'b', and neither names it" in refusal(
        a=Arm(recipe=saq), b=Arm(recipe=sgd)
    )
    resolve(a=Arm(recipe=saq), b=Arm(recipe=sgd, differs_in=("train.stages.0.method",)))


def test_other_images_and_batches_make_other_steps_which_is_to_be_declared_too() -> None:
    for override in ("train.batch_size=8", "data.train_limit=40", "data.held_out=100"):
        message = refusal(a=Arm(), b=Arm(overrides=(override,), differs_in=("data",)))
        assert "another length of the schedule in steps" in message and "differs_in: [schedule]" in message
        resolve(a=Arm(), b=Arm(overrides=(override,), differs_in=("data", "schedule")))


def test_workers_change_no_number() -> None:
    resolve(a=Arm(), b=Arm(recipe="quickstart.yaml", overrides=("data.workers=2",)))


def test_equal_compute_permits_another_schedule_and_is_held_against_the_recipes() -> None:
    saq = Arm(overrides=('train.stages.1.method={"kind": "saq", "rho": 0.1}',))
    resolve(saq=saq, twice=Arm(overrides=(PLAIN, "train.stages.1.epochs=8"), equal_compute="saq"))
    message = refusal(saq=saq, more=Arm(overrides=(PLAIN, "train.stages.1.epochs=7"), equal_compute="saq"))
    assert "differ pass each image 7 times, and those of 'saq' 8 times" in message


def test_stages_that_two_arms_share_do_not_make_others_equal_compute() -> None:
    shared = "train.stages.0.epochs=300"
    saq = ('train.stages.1.method={"kind": "saq", "rho": 0.1}', shared)
    plain = (PLAIN, "train.stages.1.epochs=6", shared)
    message = refusal(saq=Arm(overrides=saq), plain=Arm(overrides=plain, equal_compute="saq"))
    assert "differ pass each image 6 times, and those of 'saq' 8 times" in message
    one, other = (load_recipe(ROOT / "configs/quickstart.yaml", arm) for arm in (saq, plain))
    assert comparison_kind(one, other) == comparison_kind(other, one) == "neither"


def test_a_perturbed_float_stage_counts_as_compute() -> None:
    sam = load_recipe(
        ROOT / "configs/quickstart.yaml",
        [PLAIN, "train.stages.0.method.kind=sam", "train.stages.0.method.rho=0.1"],
    )
    for epochs, kind in ((10, "equal compute"), (8, "neither")):
        longer = load_recipe(ROOT / "configs/quickstart.yaml", [PLAIN, f"train.stages.1.epochs={epochs}"])
        assert comparison_kind(sam, longer) == kind


def test_passes_are_counted_as_the_methods_make_them() -> None:
    assert passes_per_step(Plain(kind="plain")) == 1
    assert passes_per_step(Sam(kind="sam")) == 2
    assert passes_per_step(Saq(kind="saq", rho=0.1)) == 2
    assert passes_per_step(Saq(kind="saq", rho=0.1, objective="vql")) == 1
    assert passes_per_step(Saq(kind="saq", rho=0.1, efficient=EfficientTraining(tau=4))) == 1.25
    # 6 epochs in full precision, 4 of 1.25 passes, 1 of the deploy stage.
    assert image_passes(load_recipe(ROOT / "configs/quickstart.yaml")) == 12


def test_a_comparison_is_at_equal_epochs_or_equal_compute_or_neither() -> None:
    saq = load_recipe(ROOT / "configs/quickstart.yaml", ['train.stages.1.method={"kind": "saq", "rho": 0.1}'])
    kinds = {
        epochs: comparison_kind(
            saq, load_recipe(ROOT / "configs/quickstart.yaml", [PLAIN, f"train.stages.1.epochs={epochs}"])
        )
        for epochs in (4, 8, 6)
    }
    assert kinds == {4: "equal epochs", 8: "equal compute", 6: "neither"}


def test_compute_is_not_equal_where_a_pass_costs_another_amount() -> None:
    recipe = ROOT / "configs/quickstart.yaml"
    saq = load_recipe(recipe, ['train.stages.1.method={"kind": "saq", "rho": 0.1}'])
    for override in (
        "data.train_limit=40",
        "train.precision=bf16",
        "data.image_size=32",
        "model.name=preresnet20",
    ):
        for epochs in (4, 8):
            other = load_recipe(recipe, [PLAIN, f"train.stages.1.epochs={epochs}", override])
            assert comparison_kind(saq, other) == "neither"
        key = override.partition("=")[0]
        message = refusal(
            a=Arm(),
            b=Arm(overrides=(override,), differs_in=("data", "weights"), equal_compute="a"),
        )
        assert f"arms.b.equal_compute: {key} differ from those of 'a'" in message


@pytest.mark.parametrize("declared", ["*", "nonsense", "train.stages.*", "data.", "train.stages.9.lr", "dat"])
def test_what_is_declared_must_be_a_guard_or_a_key(declared: str) -> None:
    message = refusal(a=Arm(), b=Arm(overrides=("data.train_limit=40",), differs_in=(declared,)))
    assert f"arms.b.differs_in: {declared!r} is no key of the recipe" in message
    assert "data, weights, schedule, calibration" in message


def test_another_number_of_images_that_are_made_shares_no_compute() -> None:
    few, many = (small_recipe(f"data.train_size={size}") for size in (64, 128))
    assert comparison_kind(few, few) == "equal epochs"
    assert comparison_kind(few, many) == "neither"
