"""What ``check`` and ``train`` ask of a recipe before anything is trained."""

from typing import TYPE_CHECKING

from saq_qat.cli.console import progress

if TYPE_CHECKING:
    from torch import nn

    from saq_qat.data.open import ImageData
    from saq_qat.quant.plan.plan import Finding, Plan
    from saq_qat.recipe.schema import Recipe

__all__ = ["deployable", "untrained"]


def untrained(recipe: "Recipe") -> "tuple[nn.Module, ImageData]":
    """The network with the weights it starts from, and the images.

    Raises:
        SaqError: images, weights or a package are not there, or the network does not take these images.
    """
    from saq_qat.train.beginning import beginning

    return beginning(recipe)


def deployable(
    model: "nn.Module", recipe: "Recipe", images: "ImageData", plan: "Plan | None" = None
) -> "tuple[Finding, ...]":
    """What the rules say of the graphs of the untrained network; nothing where it is not deployed.

    Args:
        plan: where ``model`` was traced and planned by ``plan_network``; it is quantized in place.

    Raises:
        LegalityError: ``train`` or ``export`` would refuse it.
    """
    if recipe.quant is None or not recipe.deploy.targets:
        return ()
    from saq_qat_export.rehearsal import check_deployable

    with progress("check") as shown:
        rehearsal = check_deployable(
            model, recipe, images, plan=plan, on_step=lambda step: shown.advance(note=step)
        )
    return rehearsal.findings
