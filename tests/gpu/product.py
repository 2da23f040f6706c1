"""Part (e): the product's own commands on the GPU: training to its deploy stage, export with its proof."""

from pathlib import Path
from typing import Any

from tests.gpu.commands import COMMAND, ran
from tests.gpu.options import Options
from tests.gpu.results import machine, write_part

__all__ = ["run_product_part"]

_SECONDS = 300
_RECIPE = """
version: 1
name: gpu-{name}
model: {{name: {name}}}
data: {{kind: synthetic, image_size: 32, train_size: {size}, val_size: 64, augmentation: crop_flip}}
quant: {{weight: {{bits: 4}}, activation: {{bits: 4}}, calibration_batches: 1}}
train:
  batch_size: {batch}
  compile: off
  optimizer: {{kind: sgd, momentum: 0.9}}
  stages:
    - {{kind: float, epochs: 1, lr: 0.05}}
    - {{kind: quantized, epochs: 1, lr: 0.01, method: {{kind: saq, rho: 0.4}}}}
    - {{kind: deploy, epochs: 1, lr: 0.001}}
deploy: {{thresholds: {{max_top1_drop: 100, max_flip_rate: 1}}}}
"""


def run_product_part(options: Options) -> None:
    """Writes product.json; a command that ends with another code than 0 fails the part."""
    content: dict[str, Any] = {"machine": machine(options.device)}
    folder = options.work.absolute() / "product"
    folder.mkdir(parents=True, exist_ok=True)
    small = options.rehearse
    for name in ("resnet20",) if small else ("resnet20", "resnet20_option_a"):
        recipe = folder / f"{name}.yaml"
        recipe.write_text(_RECIPE.format(name=name, size=16 if small else 1024, batch=8 if small else 128))
        content[name] = _commands(recipe)
    failed = [
        f"{name} {verb}"
        for name in content
        if name != "machine"
        for verb in content[name]
        if content[name][verb]["code"] != 0
    ]
    write_part(options.output, "product", content, complete=not failed)
    for name in failed:
        print(f"{name}:\n{content[name.split()[0]][name.split()[1]]['output'][-1500:]}")
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}; product.json has what they said")


def _commands(recipe: Path) -> dict[str, Any]:
    runs = recipe.with_suffix("")
    done = {"train": ran([*COMMAND, "train", str(recipe), "--runs", str(runs)], _SECONDS)}
    if done["train"]["code"] == 0:
        run = max(runs.glob("*/*/"), key=lambda folder: folder.stat().st_mtime)
        done["export"] = ran([*COMMAND, "export", str(run), "--code-images", "4"], _SECONDS)
    return done
