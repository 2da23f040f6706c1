"""Part (c): what a training step costs, by the product's own ``bench --train``, network after network."""

import time
import traceback
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import torch

from saq_qat.recipe.load import parse_recipe
from saq_qat.train.cost import measure_training_cost
from tests.gpu.options import Options
from tests.gpu.results import machine, write_part

__all__ = ["run_steps_part"]

_RECIPE = """
version: 1
name: gpu-{name}
model: {{name: {name}}}
data: {{kind: synthetic, classes: {classes}, image_size: {side}, train_size: {size}, val_size: 8}}
quant: {{weight: {{bits: 4}}, activation: {{bits: 4}}, calibration_batches: 1}}
train:
  batch_size: {batch}
  precision: {precision}
  compile: {compiled}
  memory_format: {layout}
  deterministic: false
  optimizer: {{kind: sgd, momentum: 0.9}}
  stages:
    - {{kind: quantized, epochs: 1, lr: 0.01, method: {{kind: saq, rho: 0.4, efficient: {{tau: 4}}}}}}
"""

_NETWORKS = {"resnet20": (32, 10), "resnet18": (224, 1000), "vit_s16": (224, 1000)}
_PRECISIONS = ("fp32", "bf16")


def run_steps_part(options: Options) -> None:
    """Every network in float32 and bfloat16, eager and compiled; writes steps.json after each measurement.

    None is begun after ``--steps-seconds``.
    """
    began = time.monotonic()
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    content: dict[str, Any] = {"machine": machine(options.device), "tf32": False, "measured": {}}
    failed = False
    for name, precision, compiled in _wanted(options):
        key = f"{name} {precision} {'compiled' if compiled == 'on' else 'eager'}"
        spent = time.monotonic() - began
        if name.startswith("vit") and find_spec("timm") is None:
            content["measured"][key] = {"skipped": "timm is not installed"}
        elif spent > options.steps_seconds:
            content["measured"][key] = {"skipped": f"after {spent:.0f} s of this part"}
        else:
            content["measured"][key] = _measured(options, name, precision, compiled)
        failed |= "failed" in content["measured"][key]
        print(f"{key}: {_line(content['measured'][key])}", flush=True)
        write_part(options.output, "steps", content, complete=False)
    write_part(options.output, "steps", content, complete=not failed)
    if failed:
        raise RuntimeError("a measurement of steps.json failed; its traceback stands there")


def _wanted(options: Options) -> list[tuple[str, str, str]]:
    """Those that need no compiler come first."""
    if options.rehearse:
        return [("resnet20", "fp32", "off")]
    eager = [(name, precision, "off") for name in _NETWORKS for precision in _PRECISIONS]
    return eager + [(name, precision, "on") for name, precision, _ in eager]


def _measured(options: Options, name: str, precision: str, compiled: str) -> dict[str, Any]:
    side, classes = _NETWORKS[name]
    batch = 4 if options.rehearse else 128
    text = _RECIPE.format(
        name=name,
        classes=classes,
        side=side,
        size=2 * batch,
        batch=batch,
        precision=precision,
        compiled=compiled,
        layout="contiguous" if precision == "fp32" else "channels_last",  # as cuDNN is faster without TF32
    )
    began = time.monotonic()
    try:
        cost = measure_training_cost(parse_recipe(text, "gpu"), rounds=1 if options.rehearse else 6)
    except Exception:  # a compiler, a kernel or memory may fail in any way; the other measurements go on
        return {"failed": traceback.format_exc()}
    finally:
        torch.compiler.reset()
        if options.device.type == "cuda":
            torch.cuda.empty_cache()
    steps = {
        "full_precision": cost.full_precision,
        "full_precision_compiled": cost.full_precision_compiled,
        "plain": cost.quantized,
        "saq": cost.saq,
        "saq_tau_4": cost.efficient,
    }
    images = {key: batch / step.seconds for key, step in steps.items() if step is not None}
    return {"cost": asdict(cost), "images_per_second": images, "seconds": time.monotonic() - began}


def _line(measured: dict[str, Any]) -> str:
    if "images_per_second" not in measured:
        return str(next(iter(measured.values()))).strip().splitlines()[-1]
    return ", ".join(f"{key} {value:,.0f} images/s" for key, value in measured["images_per_second"].items())
