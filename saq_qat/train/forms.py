"""The forms a network passes through: float, quantized, and with BatchNorm folded for the deploy stage."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, fx, nn

from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.models.build import build_model
from saq_qat.quant.deploy.view import fold_batch_norm
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import Form

__all__ = ["load_weights", "network_in_form", "next_form"]


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
        images: gives float32 batches (N, C, H, W) for calibration, where that is due.

    Raises:
        LegalityError: a target cannot run the quantized network.
    """
    if form == "float" and to != "float":
        network, plan = _quantized(network, recipe)
        calibrate(network, images())
    if isinstance(network, fx.GraphModule) and to == "deploy" and form != "deploy":
        network = fold_batch_norm(network, refine_bias=recipe.deploy.refine_bias)
    return network, plan


def network_in_form(recipe: Recipe, classes: int, form: Form) -> tuple[nn.Module, Plan | None]:
    """A network of that form with weights yet to be loaded; ``model.pretrained`` is not read."""
    network = build_model(recipe.model.model_copy(update={"pretrained": None}), classes)
    if form == "float":
        return network, None
    quantized, plan = _quantized(network, recipe)
    if form == "deploy":
        quantized = fold_batch_norm(quantized, refine_bias=recipe.deploy.refine_bias)
    return quantized, plan


def _quantized(network: nn.Module, recipe: Recipe) -> tuple[fx.GraphModule, Plan]:
    if recipe.quant is None:
        raise RecipeError("A quantized stage needs the section quant, which is missing or null.")
    return quantize(network, recipe.quant, recipe.deploy.targets, cpu=recipe.deploy.onnxruntime.cpu)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load every weight of a checkpoint.

    Raises:
        ArtifactError: names or shapes differ from the network that the recipe builds.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(
            f"{where}: the weights do not fit the network of the recipe beside them: {error} "
            "The model's code may have changed since."
        ) from error
