"""The recipe: everything a run is made of, as frozen, strict data.

Plain data only: no torch, no numpy, no files. One module for each section; every field carries the
description that editors show (`saq-qat schema`).
"""

from saq_qat.recipe.schema.base import Bits, Section
from saq_qat.recipe.schema.data import (
    Cifar,
    Data,
    Digits,
    ImageFolder,
    Memory,
    Parquet,
    RandAugment,
    RandomErasing,
    Synthetic,
)
from saq_qat.recipe.schema.deploy import Cpu, Deploy, OnnxRuntime, Target, Thresholds
from saq_qat.recipe.schema.method import EfficientTraining, Plain, Sam, Saq
from saq_qat.recipe.schema.model import Model
from saq_qat.recipe.schema.optimizer import AdamW, Optimizer, Sgd
from saq_qat.recipe.schema.quant import ActivationQuantizer, Override, Quant, WeightQuantizer
from saq_qat.recipe.schema.recipe import Recipe
from saq_qat.recipe.schema.teacher import Teacher
from saq_qat.recipe.schema.tensorrt import BatchRange, TensorRt
from saq_qat.recipe.schema.train import (
    CalibrationStage,
    DeployStage,
    DescentStage,
    Ema,
    FloatStage,
    LogCopyName,
    Mixing,
    QuantizedStage,
    Stage,
    StatisticsStage,
    Train,
)

__all__ = [
    "ActivationQuantizer",
    "AdamW",
    "BatchRange",
    "Bits",
    "CalibrationStage",
    "Cifar",
    "Cpu",
    "Data",
    "Deploy",
    "DeployStage",
    "DescentStage",
    "Digits",
    "EfficientTraining",
    "Ema",
    "FloatStage",
    "ImageFolder",
    "LogCopyName",
    "Memory",
    "Mixing",
    "Model",
    "OnnxRuntime",
    "Optimizer",
    "Override",
    "Parquet",
    "Plain",
    "Quant",
    "QuantizedStage",
    "RandAugment",
    "RandomErasing",
    "Recipe",
    "Sam",
    "Saq",
    "Section",
    "Sgd",
    "Stage",
    "StatisticsStage",
    "Synthetic",
    "Target",
    "Teacher",
    "TensorRt",
    "Thresholds",
    "Train",
    "WeightQuantizer",
]
