"""The forms a network passes through: float, quantized, and with BatchNorm folded for the deploy stage."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, fx, nn

from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.models.build import build_model
from saq_qat.models.probe import CHANNELS
from saq_qat.quant.deploy.computed import computed_values
from saq_qat.quant.deploy.recorded import fill_records, plan_records
from saq_qat.quant.deploy.view import fold_batch_norm
from saq_qat.quant.network import calibrate, quantize, quantize_planned
from saq_qat.quant.plan.plan import Plan
from saq_qat.quant.plan.records import NetworkRecords, differences
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import Checkpoint, Form

__all__ = ["check_records", "computed_of", "load_weights", "network_in_form", "next_form", "records_of"]

_LISTED = 12


def next_form(
    network: nn.Module,
    plan: Plan | None,
    recipe: Recipe,
    form: Form,
    to: Form,
    images: Callable[[], Iterable[Tensor]],
) -> tuple[nn.Module, Plan | None]:
    """Take ``network`` from ``form`` to ``to``; the forms are passed in order and never go back.

    Args:
        plan: of ``network``; of one in float None, or that with which ``plan_network`` gave it.
        images: gives float32 batches (N, C, H, W) for calibration, where that is due.

    Raises:
        LegalityError: a target cannot run the quantized network.
    """
    if form == "float" and to != "float":
        device = next(network.parameters()).device
        network = network.cpu()  # the trace compares with tensors of its own
        if isinstance(network, fx.GraphModule) and plan is not None:
            quantized = network
            quantize_planned(quantized, plan)
        else:
            quantized, plan = _quantized(network, recipe)
        network = quantized.to(device)
        calibrate(quantized, images())
    if isinstance(network, fx.GraphModule) and to == "deploy" and form != "deploy":
        network = fold_batch_norm(network, refine_bias=recipe.deploy.refine_bias)
    return network, plan


def network_in_form(recipe: Recipe, classes: int, form: Form) -> tuple[nn.Module, Plan | None]:
    """A network of that form with weights yet to be loaded; ``model.pretrained`` is not read."""
    network = build_model(recipe.model.model_copy(update={"pretrained": None}), classes)
    if form == "float":
        return network, None
    quantized, plan = _quantized(network, recipe, initialise=False)
    if form == "deploy":
        quantized = fold_batch_norm(quantized, refine_bias=recipe.deploy.refine_bias)
    return quantized, plan


def _quantized(network: nn.Module, recipe: Recipe, *, initialise: bool = True) -> tuple[fx.GraphModule, Plan]:
    if recipe.quant is None:
        raise RecipeError("A quantized stage needs the section quant, which is missing or null.")
    side, deploy = recipe.data.image_size, recipe.deploy
    return quantize(
        network,
        recipe.quant,
        deploy.targets,
        cpu=deploy.onnxruntime.cpu,
        image=(CHANNELS, side, side),
        initialise=initialise,
    )


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load every weight of a checkpoint.

    Raises:
        ArtifactError: names, shapes or types differ from the network that the recipe builds.
    """
    own = network.state_dict()
    other = next((n for n, t in weights.items() if n in own and t.dtype != own[n].dtype), None)
    if other is not None:
        raise ArtifactError(
            f"{where}: the weights do not fit the network of the recipe beside them: {other} is "
            f"{weights[other].dtype}, and must be {own[other].dtype}. Put back what training wrote."
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(
            f"{where}: the weights do not fit the network of the recipe beside them: {error} "
            "The model's code may have changed since."
        ) from error


def records_of(network: nn.Module, plan: Plan | None, recipe: Recipe) -> NetworkRecords | None:
    """What a checkpoint stores of a network beside its weights; None in full precision."""
    if plan is None or not isinstance(network, fx.GraphModule):
        return None
    return fill_records(plan_records(network, plan, refine_bias=recipe.deploy.refine_bias), network)


def computed_of(network: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint stores of a quantized network that computes with its parameters alone."""
    values = computed_values(network) if isinstance(network, fx.GraphModule) else {}
    return {name: value.float() for name, value in values.items()}


def check_records(
    network: nn.Module, plan: Plan | None, recipe: Recipe, checkpoint: Checkpoint
) -> NetworkRecords | None:
    """The records a network was trained with, which those that its recipe gives today must equal.

    Raises:
        ArtifactError: they differ; the message shows both where they do.
    """
    if plan is None or not isinstance(network, fx.GraphModule):
        return None
    if checkpoint.records is None:
        raise ArtifactError(
            f"{checkpoint.folder}: a quantized network without records of what was trained. "
            "Train again, or export with the version that wrote it."
        )
    planned = plan_records(network, plan, refine_bias=recipe.deploy.refine_bias)
    found = differences(checkpoint.records, planned)
    if found:
        more = [f"  and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
        listed = "\n".join([*(f"  {line}" for line in found[:_LISTED]), *more])
        raise ArtifactError(
            f"{checkpoint.folder}: this recipe is planned otherwise today than when the network was trained, "
            f"so it would be another network:\n{listed}\n"
            "Use the version of saq-qat and of the model's code that trained it, or train again."
        )
    return checkpoint.records
