"""The `train` section: the stages of training and what they share."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from saq_qat.recipe.schema.base import (
    BrokenRule,
    Concentration,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Section,
)
from saq_qat.recipe.schema.method import Plain, Sam, Saq
from saq_qat.recipe.schema.optimizer import Optimizer, Sgd
from saq_qat.recipe.schema.teacher import Teacher

__all__ = [
    "CalibrationStage",
    "DeployStage",
    "DescentStage",
    "Ema",
    "FloatStage",
    "LogCopyName",
    "Mixing",
    "Precision",
    "QuantizedStage",
    "Stage",
    "StatisticsStage",
    "Train",
]

LogCopyName = Literal["csv", "tensorboard"]
"""What can be kept of the log beside log.jsonl."""

_ORDER = {"float": 0, "calibration": 1, "quantized": 1, "deploy": 2}

_SHORT = {"fp32": "float32", "bf16": "bfloat16"}


def _in_full(precision: object) -> object:
    return _SHORT.get(precision, precision) if isinstance(precision, str) else precision


def _as_word(switch: object) -> object:
    return {True: "on", False: "off"}[switch] if isinstance(switch, bool) else switch


Precision = Annotated[Literal["float32", "bfloat16"], BeforeValidator(_in_full)]
"""``fp32`` and ``bf16`` are read as what they are short for."""

Compile = Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_word)]
"""Older YAML reads ``on`` and ``off`` as true and false."""


class _Stage(Section):
    epochs: Count = Field(description="Passes over the training images.")
    lr: Positive = Field(description="Peak learning rate; falls to 0 along a cosine.")
    warmup_epochs: NonNegative = Field(
        default=0.0, description="Epochs of linear warm-up from 0, part of `epochs`."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.warmup_epochs > self.epochs:
            yield "warmup_epochs", f"must be at most epochs = {self.epochs} (got {self.warmup_epochs})"


class FloatStage(_Stage):
    """Training in full precision."""

    kind: Literal["float"] = Field(description="Train in full precision.")
    method: Annotated[Plain | Sam, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"), description="plain or sam."
    )


class QuantizedStage(_Stage):
    """Training with quantized weights and activations."""

    kind: Literal["quantized"] = Field(description="Train with quantized weights and activations.")
    method: Annotated[Plain | Saq, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"), description="plain quantization-aware training, or saq."
    )


class DeployStage(_Stage):
    """Fine-tuning of the deployed arithmetic: BatchNorm folded and frozen, biases rounded."""

    kind: Literal["deploy"] = Field(description="Train with BatchNorm folded and biases rounded.")
    method: Annotated[Plain | Saq, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"),
        description="plain or saq, with BatchNorm folded and biases on their integer grid.",
    )


class StatisticsStage(Section):
    """Re-estimation of BatchNorm's running statistics; nothing else moves."""

    kind: Literal["statistics"] = Field(
        description="Estimate BatchNorm's running statistics anew, as plain means over training batches, "
        "with all weights at rest. For statistics that lag behind, as in low-bit depthwise networks."
    )
    batches: Count = Field(
        default=10, description="Training batches to average over (10 in the paper, for MobileNetV2)."
    )


class CalibrationStage(Section):
    """Quantization without training: first values of clip levels, BatchNorm's statistics, and no more."""

    kind: Literal["calibration"] = Field(
        description="Quantize: quant.calibration_batches of training images place every clip level, and give "
        "BatchNorm its statistics anew. No weight is trained."
    )


DescentStage = FloatStage | QuantizedStage | DeployStage
"""The stages that move weights."""

Stage = Annotated[
    FloatStage | CalibrationStage | QuantizedStage | StatisticsStage | DeployStage,
    Field(discriminator="kind"),
]


def _calibrated_alone(stages: object) -> object:
    return (CalibrationStage(kind="calibration"),) if stages == () else stages


class Mixing(Section):
    """Training images mixed with others of their batch, labels in the same proportion."""

    mixup: Concentration | None = Field(
        default=None,
        description="Blend two images (Zhang et al., 2018): alpha of the Beta distribution that draws how "
        "far.",
    )
    cutmix: Concentration | None = Field(
        default=None,
        description="Put a rectangle of one image into the other (Yun et al., 2019): alpha of the Beta "
        "distribution that draws how large.",
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.mixup is None and self.cutmix is None:
            yield "mixup", "mixing needs mixup, cutmix or both, of which each batch then draws one"


class Ema(Section):
    """An exponential moving average of the weights, judged and deployed in their place."""

    decay: Fraction = Field(
        default=0.999,
        description="Share of the average that stays in each step; smaller in the first steps of a stage: "
        "(1 + n) / (10 + n) after n steps.",
    )


class Train(Section):
    """The stages of training and what they share."""

    batch_size: Count = Field(description="Images of one optimizer step, over all processes.")
    micro_batch_size: Count | None = Field(
        default=None,
        description="m of m-sharpness: images that share one perturbation; "
        "the whole share of a process if null.",
    )
    optimizer: Optimizer = Field(
        default=Sgd(kind="sgd"), description="sgd or adamw; needed wherever a stage trains."
    )
    stages: Annotated[tuple[Stage, ...], BeforeValidator(_calibrated_alone)] = Field(
        description="In this order: float stages, quantized stages, one deploy stage; each optional. "
        "A calibration stage quantizes without training; statistics stages may follow any but deploy. "
        "[] is one calibration stage: the network as it is, quantized.",
    )
    teacher: Teacher | None = Field(
        default=None,
        description="Knowledge distillation: a trained network that teaches in all stages. Training alone "
        "needs it, and resuming the same one again. No teacher if null.",
    )
    mixing: Mixing | None = Field(
        default=None, description="Mix training images and their labels; each stands for itself if null."
    )
    ema: Ema | None = Field(
        default=None,
        description="Moving average of weights, clip levels and BatchNorm's statistics over the steps of a "
        "stage: what is evaluated after each epoch, saved as best, exported, and where the next stage "
        "begins. The weights themselves if null.",
    )
    label_smoothing: Fraction = Field(default=0.0, description="Label smoothing of the cross entropy.")
    precision: Precision = Field(
        default="float32",
        description="float32 (or fp32), or bfloat16 (bf16): autocast of convolutions and matrix products. "
        "Quantizers and evaluations stay in float32, and no epsilon is rounded away. On a CPU it needs "
        "AVX-512 BF16.",
    )
    compile: Compile = Field(
        default="auto",
        description="Compile each stage's passes, which trains faster after a minute or two of warm-up and "
        "changes no code of any value. auto: where the stage is long enough to earn that and a compiler is "
        "there, as log.jsonl says.",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        default="auto",
        description="Order of images and weights in memory. auto: channels_last where passes are compiled, "
        "else contiguous.",
    )
    deterministic: bool = Field(default=True, description="Bit-for-bit repeatable steps on one machine.")
    evaluate_epochs: Count = Field(
        default=1,
        description="Judge the network every so many epochs, and after the last of each stage. The epochs "
        "between are saved as last and cannot become best.",
    )
    checkpoint_steps: Count | None = Field(
        default=None, description="Save every so many steps too; only after each epoch if null."
    )
    logs: tuple[LogCopyName, ...] = Field(
        default=(),
        description="Copies of log.jsonl that are kept beside it: csv, a table in log.csv; tensorboard, "
        "curves in tensorboard/ (extra of the same name). None if empty.",
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if "optimizer" not in self.model_fields_set and any(isinstance(s, DescentStage) for s in self.stages):
            yield "optimizer", "a stage that trains needs an optimizer: {kind: sgd} or {kind: adamw}"
        m = self.micro_batch_size
        if m is not None and self.batch_size % m:
            yield "micro_batch_size", f"must divide batch_size = {self.batch_size} (got {m})"
        if self.teacher is not None and self.teacher.label_weight == 0 and self.label_smoothing > 0:
            yield (
                "label_smoothing",
                "smooths labels that teacher.label_weight = 0 leaves out; drop one of them",
            )
        if len(set(self.logs)) < len(self.logs):
            yield "logs", f"names each copy once (got {', '.join(self.logs)})"
        yield from _broken_order(self.stages)


def _broken_order(stages: tuple[Stage, ...]) -> Iterator[BrokenRule]:
    before: str | None = None
    for index, stage in enumerate(stages):
        at = f"stages.{index}"
        if isinstance(stage, StatisticsStage):
            if before is None:
                yield at, "a statistics stage needs a float, calibration or quantized stage before it"
            elif before == "deploy":
                yield at, "a statistics stage cannot follow a deploy stage, which has no BatchNorm left"
            continue
        if stage.kind == "calibration" and before in ("calibration", "quantized"):
            yield at, f"a calibration stage cannot follow a {before} stage, which has calibrated already"
        elif before is not None and _ORDER[stage.kind] < _ORDER[before]:
            yield (
                at,
                f"a {stage.kind} stage cannot follow a {before} stage; the order is float, quantized, deploy",
            )
        elif stage.kind == before == "deploy":
            yield at, "there can be only one deploy stage; give it more epochs instead"
        before = stage.kind
