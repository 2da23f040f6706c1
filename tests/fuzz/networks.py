"""Random networks end to end: checked, trained, exported, proved and loaded; refused by check, or exact."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from saq_qat.data.open import open_data
from saq_qat.errors import LegalityError
from saq_qat.models.build import build_model
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.run import run_training
from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.rehearsal import rehearse
from saq_qat_export.run import export_run
from saq_qat_runtime.session import Session
from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE"]

_RECIPE = """
version: 1
name: random
model: {{name: "tests.export.random_networks:RandomNetwork", arguments: {{seed: {seed}}}}}
data: {{kind: synthetic, image_size: {side}, train_size: 8, val_size: 8}}
quant: {{weight: {{bits: {weights}}}, activation: {{bits: {activations}}}, calibration_batches: 1}}
train:
  batch_size: 8
  optimizer: {{kind: {optimizer}}}
  stages: [{{kind: quantized, epochs: 1, lr: 0.001, method: {method}}}]
deploy: {{targets: [{target}], thresholds: {{max_top1_drop: 100, max_flip_rate: 1}}}}
"""


def _recipe(random: Random) -> Recipe:
    text = _RECIPE.format(
        seed=random.randrange(2**31),
        side=random.choice((16, 17, 20)),
        weights=random.choice((2, 3, 4, 8)),
        activations=random.choice((2, 3, 4, 8)),
        optimizer=random.choice(("sgd", "adamw")),
        method=random.choice(("{kind: plain}", "{kind: saq, rho: 0.1}")),
        target=random.choice(("onnxruntime", "onnxruntime, tensorrt", "openvino")),
    )
    return parse_recipe(text, "random")


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    run, bundle = folder / "run", folder / "bundle"

    def case(random: Random) -> str:
        recipe = _recipe(random)
        for made in (run, bundle):
            shutil.rmtree(made, ignore_errors=True)
        try:
            found = rehearse(build_model(recipe.model, 10), recipe, open_data(recipe.data, 0))
        except LegalityError:
            return "refused"
        assert [str(one) for one in found.findings if one.level == "error"] == []
        assert [f"{one.name}: {one.detail}" for one in found.failed] == []
        run_training(recipe, run)
        export_run(run, bundle, size=ProofSize(2, 8))
        with Session.load(bundle, threads=1) as session:
            session.self_test()
        return "exact"

    yield case


SURFACE = Surface("networks", _opened, seconds=300.0, mebibytes=2000)
