"""A quantized network that a program trained, as ``restore`` gives that of a run: by way of a checkpoint."""

import copy
from pathlib import Path

from torch import fx

from saq_qat.data.open import ImageData
from saq_qat.data.record import data_record
from saq_qat.quant.deploy.recorded import take_up_statistics
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.load import dump_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import Checkpoint, Form, Position, read_checkpoint, write_checkpoint
from saq_qat.train.folder import RESOLVED
from saq_qat.train.forms import computed_of, load_weights, records_of
from saq_qat.train.restore import Restored

__all__ = ["adopt"]


def adopt(
    network: fx.GraphModule, plan: Plan, recipe: Recipe, images: ImageData, form: Form, folder: Path
) -> Restored:
    """Write a checkpoint of ``network`` below ``folder`` and give a copy of the network with its weights.

    What is then lowered and proved is what was written and read again, as for any run.

    Args:
        network: quantized and calibrated, on any device; left as it is.
        recipe: says how it was quantized, and where it will run.
        images: to prove it on.
        form: quantized, or deploy.
        folder: of the run that this looks like; new or empty.

    Raises:
        DivergedError: a tensor holds numbers that are not finite.
    """
    network = copy.deepcopy(network).cpu().eval()
    records = records_of(network, plan, recipe)
    checkpoint = Checkpoint(
        Position(), form, 1, network.state_dict(), records=records, data=data_record(images),
        computed=computed_of(network),
    )  # fmt: skip  # one value a line is a page
    place = folder / "checkpoints" / "last"
    write_checkpoint(place, checkpoint)
    (folder / RESOLVED).write_bytes(dump_recipe(recipe).encode())
    written = read_checkpoint(place)
    load_weights(network, written.model, str(place))
    if written.records is not None:
        take_up_statistics(network, written.records)
    return Restored(folder, recipe, network, plan, images, form, 0, 0, written.sha256, place)
