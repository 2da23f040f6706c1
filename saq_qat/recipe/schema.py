"""The recipe: everything a run is made of, as frozen, strict data.

Plain data only: no torch, no numpy, no files. Every field carries the description that editors show (`saq-qat schema`).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ActivationQuantizer",
    "AdamW",
    "Bits",
    "Data",
    "Deploy",
    "DeployStage",
    "EfficientTraining",
    "FloatStage",
    "Model",
    "Optimizer",
    "Override",
    "Plain",
    "Quant",
    "QuantizedStage",
    "Recipe",
    "Sam",
    "Saq",
    "Sgd",
    "Stage",
    "Thresholds",
    "Train",
    "WeightQuantizer",
]

Bits = Annotated[int, Field(ge=2, le=8)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Scalar = bool | int | float | str


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values are never coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(Section):
    name: str = Field(
        min_length=1,
        description="A built-in network (resnet20, preresnet20, resnet18, resnet34, resnet50, mobilenet_v2) "
        "or your own as 'package.module:callable', called with the number of classes as `num_classes`.",
    )
    arguments: dict[str, Scalar] = Field(default={}, description="Further keyword arguments of the constructor.")
    pretrained: str | None = Field(
        default=None,
        description="A local .safetensors or .pth file of weights; loaded without ever unpickling code.",
    )
    pretrained_strict: bool = Field(
        default=True,
        description="Every weight must be found with its shape. False lets the head differ, and lists what was skipped.",
    )


class _Images(Section):
    image_size: Count = Field(default=32, description="Side of the square network input, in pixels.")
    augmentation: Literal["none", "crop_flip", "resized_crop_flip"] = Field(
        default="none",
        description="Training augmentation: crop_flip pads by an eighth, crops and mirrors; resized_crop_flip is ImageNet's.",
    )
    mean: tuple[float, ...] | None = Field(default=None, description="Per-channel mean of pixels in 0..1; data default if null.")
    std: tuple[Positive, ...] | None = Field(default=None, description="Per-channel deviation; data default if null.")
    workers: int = Field(default=0, ge=0, description="Loader processes; the batches are the same for any number.")
    train_limit: Count | None = Field(default=None, description="Use only this many training images (a fixed shuffle).")
    val_limit: Count | None = Field(default=None, description="Use only this many validation images (a fixed shuffle).")


class Digits(_Images):
    kind: Literal["digits"]
    image_size: Count = Field(default=16, description="Side of the square network input, in pixels; digits are 8x8 scans.")


class Cifar(_Images):
    kind: Literal["cifar10", "cifar100"]
    root: str = Field(description="Folder that holds the extracted CIFAR python archive.")


class ImageFolder(_Images):
    kind: Literal["imagefolder"]
    root: str = Field(description="Folder with train/<class>/* and val/<class>/*.")
    image_size: Count = Field(default=224, description="Side of the square network input, in pixels.")
    resize: Count | None = Field(
        default=None, description="Short side before the centre crop of evaluation; image_size * 8 / 7 if null."
    )


class Synthetic(_Images):
    kind: Literal["synthetic"]
    classes: Count = Field(default=10, description="Number of labels.")
    train_size: Count = Field(default=256, description="Number of training images.")
    val_size: Count = Field(default=64, description="Number of validation images.")


Data = Annotated[Digits | Cifar | ImageFolder | Synthetic, Field(discriminator="kind")]

Initialisation = Literal["ones", "max", "mse"]


class WeightQuantizer(Section):
    kind: Literal["saq", "symmetric", "lsq"] = Field(
        default="saq", description="saq: the paper's odd grid without zero; symmetric: with zero; lsq: learned step size."
    )
    bits: Bits = Field(description="Bit-width, 2 to 8.")
    initialise: Initialisation = Field(
        default="mse", description="First clip level: 1 (paper), the largest magnitude, or the least squared error."
    )


class ActivationQuantizer(Section):
    kind: Literal["saq", "symmetric", "lsq", "lsq+"] = Field(
        default="saq",
        description="saq: clip level; lsq: learned step; lsq+: learned step and offset; symmetric: signed even of ReLU outputs.",
    )
    bits: Bits = Field(description="Bit-width, 2 to 8.")
    initialise: Initialisation = Field(
        default="mse", description="First clip level: 1 (paper), the largest magnitude, or the least squared error."
    )


class Override(Section):
    match: str = Field(min_length=1, description="Shell pattern over layer names, such as 'layer4.*'. The last match wins.")
    weight_bits: Bits | None = Field(default=None, description="Bits of the matching layers' weights.")
    activation_bits: Bits | None = Field(default=None, description="Bits of the matching layers' inputs.")
    weight_kind: Literal["saq", "symmetric", "lsq"] | None = Field(default=None, description="Quantizer of their weights.")
    activation_kind: Literal["saq", "symmetric", "lsq", "lsq+"] | None = Field(
        default=None, description="Quantizer of their inputs."
    )


class Quant(Section):
    weight: WeightQuantizer = Field(description="Quantizer of every convolution's and linear layer's weight.")
    activation: ActivationQuantizer = Field(description="Quantizer of every convolution's and linear layer's input.")
    edge_bits: Bits = Field(default=8, description="Bits of the first and the last layer, weight and input.")
    residual_bits: Bits = Field(default=8, description="Bits of residual branches, their sums and pooled features.")
    quantize_image: bool = Field(
        default=True, description="Quantize the input image to int8; false keeps the first layer in float (paper)."
    )
    placement: Literal["deploy", "paper"] = Field(
        default="deploy",
        description="deploy: everywhere the targets need codes; paper: convolution and linear inputs only.",
    )
    grid: Literal["deploy", "paper"] = Field(
        default="deploy",
        description="Grid of 8-bit layers. deploy: fits int8 everywhere; paper: odd integers to 255, which no int8 holds.",
    )
    normalize_weights: bool = Field(
        default=True, description="Subtract the mean of a convolution's weight and divide by its deviation first (APoT)."
    )
    rescale_std: bool = Field(
        default=False, description="Multiply the quantized weight by that deviation again; needed where no BatchNorm follows."
    )
    calibration_batches: Count = Field(default=4, description="Training batches that initialise activation quantizers.")
    overrides: tuple[Override, ...] = Field(default=(), description="Mixed precision: exceptions by layer name.")


class Plain(Section):
    kind: Literal["plain"]


class Sam(Section):
    kind: Literal["sam"]
    rho: Positive = Field(default=0.05, description="Radius of the ball around the full-precision weights (SAM, Eq. 4).")


class EfficientTraining(Section):
    tau: Annotated[int, Field(ge=2)] = Field(default=4, description="A second pass every tau steps (Algorithm 1).")
    beta: Positive = Field(default=0.7, description="Length of the reused vertical gradient relative to ||g||.")


class Saq(Section):
    kind: Literal["saq"]
    rho: NonNegative = Field(description="Radius of the ball around the quantized weights; the paper searches 0.02 to 1.")
    case: Literal[1, 2, 3] = Field(default=3, description="How noise and perturbation depend on each other (Table 1).")
    objective: Literal["sum", "pql", "vql", "mean"] = Field(
        default="sum", description="sum: g_s + g (Eq. 15); pql: g_s; vql: g; mean: half of sum."
    )
    case2_space: Literal["normalised", "raw"] = Field(
        default="normalised", description="Case 2 moves the normalised weight, or the raw one before normalisation."
    )
    perturb: tuple[Literal["weight", "bias", "norm", "clip_level"], ...] = Field(
        default=("weight",), description="What the ball holds; the authors' first code used all but weight clip levels."
    )
    second_pass_statistics: bool = Field(
        default=False, description="Let the perturbed pass update BatchNorm statistics too (the authors' first code)."
    )
    efficient: EfficientTraining | None = Field(default=None, description="Reuse the vertical gradient between second passes.")


class Sgd(Section):
    kind: Literal["sgd"]
    momentum: Fraction = Field(default=0.9, description="Momentum.")
    nesterov: bool = Field(default=False, description="Nesterov momentum.")
    weight_decay: NonNegative = Field(default=1e-4, description="Weight decay of weights and other decayed parameters.")
    decay: Literal["weights", "all"] = Field(
        default="weights", description="Decay weights alone, or BatchNorm and biases too (the authors' code)."
    )
    clip_level_decay: NonNegative = Field(default=0.0, description="Weight decay of clip levels and steps.")
    clip_level_lr: Positive = Field(default=1.0, description="Learning rate of clip levels, steps and offsets relative to lr.")
    max_norm: Positive | None = Field(default=None, description="Clip the norm of the combined gradient.")


class AdamW(Section):
    kind: Literal["adamw"]
    betas: tuple[Fraction, Fraction] = Field(default=(0.9, 0.999), description="Decay of the two moments.")
    weight_decay: NonNegative = Field(default=0.05, description="Decoupled weight decay.")
    decay: Literal["weights", "all"] = Field(default="weights", description="Decay weights alone, or norms and biases too.")
    clip_level_decay: NonNegative = Field(default=0.0, description="Weight decay of clip levels and steps.")
    clip_level_lr: Positive = Field(default=1.0, description="Learning rate of clip levels, steps and offsets relative to lr.")
    max_norm: Positive | None = Field(default=None, description="Clip the norm of the combined gradient.")


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="kind")]


class _Stage(Section):
    epochs: Count = Field(description="Passes over the training images.")
    lr: Positive = Field(description="Peak learning rate; falls to 0 along a cosine.")
    warmup_epochs: NonNegative = Field(default=0.0, description="Epochs of linear warm-up from 0.")


class FloatStage(_Stage):
    kind: Literal["float"]
    method: Annotated[Plain | Sam, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"), description="plain or sam."
    )


class QuantizedStage(_Stage):
    kind: Literal["quantized"]
    method: Annotated[Plain | Saq, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"), description="plain quantization-aware training, or saq."
    )


class DeployStage(_Stage):
    kind: Literal["deploy"]
    method: Annotated[Plain | Saq, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"), description="plain or saq, with BatchNorm folded and biases on their integer grid."
    )


Stage = Annotated[FloatStage | QuantizedStage | DeployStage, Field(discriminator="kind")]


class Train(Section):
    batch_size: Count = Field(description="Images per optimizer step, over all processes.")
    micro_batch_size: Count | None = Field(
        default=None, description="m of m-sharpness: images that share one perturbation; a process's whole share if null."
    )
    optimizer: Optimizer = Field(description="sgd or adamw.")
    stages: tuple[Stage, ...] = Field(min_length=1, description="float, then quantized, then deploy; each may be left out.")
    label_smoothing: Fraction = Field(default=0.0, description="Label smoothing of the cross entropy.")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Autocast of convolutions and products; quantizers stay in float32."
    )
    deterministic: bool = Field(default=True, description="Bit-for-bit repeatable steps on one machine.")
    checkpoint_steps: Count | None = Field(default=None, description="Also save every so many steps; each epoch if null.")


class Thresholds(Section):
    max_top1_drop: NonNegative = Field(default=1.0, description="Points of top-1 that deployment may lose to fake-quant.")
    max_flip_rate: NonNegative = Field(
        default=0.05, description="Share of predictions that deployment may change from fake-quant."
    )


class Deploy(Section):
    targets: tuple[Literal["onnxruntime"], ...] = Field(
        default=("onnxruntime",), min_length=1, description="Where the network will run; decides placement and grids."
    )
    refine_bias: bool = Field(
        default=True, description="Store low-bit weight codes times a power of two, for a finer integer bias."
    )
    pack_weights: bool = Field(default=True, description="Store weights of up to 4 bits as uint4, unpacked at load.")
    thresholds: Thresholds = Field(default=Thresholds(), description="What deployment may cost before the gate fails.")


class Recipe(Section):
    version: Literal[1] = Field(description="Version of the recipe format.")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the folder under runs/.")
    seed: int = Field(default=0, ge=0, description="Seed of initial weights, data order and augmentation.")
    model: Model = Field(description="The network.")
    data: Data = Field(description="The images.")
    quant: Quant | None = Field(default=None, description="How to quantize; null trains in full precision.")
    train: Train = Field(description="How to train.")
    deploy: Deploy = Field(default=Deploy(), description="Where and how to deploy.")
