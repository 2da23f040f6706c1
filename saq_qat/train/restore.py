"""A trained network back from its run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import fx, nn

from saq_qat.data.open import ImageData, open_data
from saq_qat.data.record import check_data_record
from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.recorded import take_up_statistics
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import Form, newest_checkpoint
from saq_qat.train.folder import RESOLVED
from saq_qat.train.forms import check_records, load_weights, network_in_form
from saq_qat.train.trained_numbers import not_finite

__all__ = ["Restored", "restore"]


@dataclass(frozen=True)
class Restored:
    """A run's network in evaluation mode on the CPU, with what it was made of.

    Attributes:
        plan: of its quantizers; None for a float network.
        form: float, quantized, or deploy (with BatchNorm folded).
        stage: of the recipe, from 0, that the checkpoint was written in.
        step: optimizer steps it was trained for.
        checkpoint_sha256: of the model.safetensors its weights came from.
        checkpoint: the folder it was read from.
    """

    run: Path
    recipe: Recipe
    network: nn.Module
    plan: Plan | None
    images: ImageData
    form: Form
    stage: int
    step: int
    checkpoint_sha256: str
    checkpoint: Path

    @property
    def why_float(self) -> str:
        """Of a network without quantizers: why it has none, and what gives it some."""
        if self.recipe.quant is None:
            return (
                f"{self.run}: this run was trained in full precision. Add a quant section and a quantized "
                "stage to the recipe; model.pretrained may name this run's weights."
            )
        stages = self.recipe.train.stages
        return (
            f"{self.checkpoint}: this checkpoint stopped in stage {self.stage + 1} of {len(stages)} "
            f"({stages[self.stage].kind}), before a stage that quantizes. Go on with: saq-qat train --resume "
            f"{self.run} (if it diverged: train again with a lower learning rate in that stage)."
        )


def restore(run: Path, which: Literal["last", "best"] = "last", images: ImageData | None = None) -> Restored:
    """Rebuild the network of a run from its resolved recipe and a checkpoint.

    Args:
        which: ``last``, or ``best`` by the top-1 of the deploy view (of the network itself for a float
            recipe); ``choose_checkpoint`` says which of them a command takes.
        images: those that the run's recipe names, where they are open already.

    Raises:
        ArtifactError: the folder is no run, its checkpoint is missing or damaged and so is the one before
            it, which is tried with a warning; or the network was trained otherwise than its recipe says.
        DataError: the images are not what the recipe says.
    """
    if not (run / RESOLVED).is_file():
        raise ArtifactError(
            f"{run}: no run; it has no {RESOLVED}. Name a folder that saq-qat train has written."
        )
    recipe = load_recipe(run / RESOLVED)
    folder = run / "checkpoints" / which
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise ArtifactError(f"{folder}: no such checkpoint; the training has not saved one yet.")
    wrong = not_finite(checkpoint.model)
    if wrong:
        raise ArtifactError(
            f"{folder}: {wrong} holds numbers that are not finite, so the network means nothing. Take "
            "another checkpoint, or train with a lower learning rate."
        )
    images = open_data(recipe.data, recipe.seed) if images is None else images
    if checkpoint.data is not None:
        check_data_record(checkpoint.data, images, str(folder))
    network, plan = network_in_form(recipe, len(images.classes), checkpoint.form)
    records = check_records(network, plan, recipe, checkpoint)
    load_weights(network, checkpoint.model, str(folder))
    if records is not None and isinstance(network, fx.GraphModule):
        take_up_statistics(network, records)
    return Restored(
        run,
        recipe,
        network.eval(),
        plan,
        images,
        checkpoint.form,
        checkpoint.position.stage,
        checkpoint.position.step,
        checkpoint.sha256,
        checkpoint.folder or folder,
    )
