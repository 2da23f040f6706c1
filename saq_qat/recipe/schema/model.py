"""The `model` section: which network, and which weights it starts from."""

from pydantic import Field

from saq_qat.recipe.schema.base import Scalar, Section

__all__ = ["Model"]


class Model(Section):
    """The network and the weights it starts from."""

    name: str = Field(
        min_length=1,
        description="A built-in network (resnet20, preresnet20, resnet20_option_a, resnet32_option_a, "
        "resnet44_option_a, resnet56_option_a, resnet18, resnet34, resnet50, mobilenet_v2; "
        "with the extra vit: vit_s32, vit_s16, vit_b32, vit_b16, vit_micro) or your own as "
        "'package.module:callable', called with the number of classes as `num_classes`.",
    )
    arguments: dict[str, Scalar] = Field(
        default={}, description="Further keyword arguments of the constructor."
    )
    pretrained: str | None = Field(
        default=None,
        min_length=1,
        description="A local .safetensors or .pth file of weights, relative to the working directory; "
        "loaded without ever unpickling code. Random weights if null.",
    )
    pretrained_strict: bool = Field(
        default=True,
        description="Every weight must be found with its shape. False lets the head differ, "
        "and lists what was skipped.",
    )
