"""One network as ``check`` takes it, as JSON: ``python -m tests.families.one LIBRARY NAME SIDE ARGUMENTS``.

At 4 bits, for both targets, at the network's own image size, on synthetic images.
"""

import json
import sys
import warnings
from typing import Any

from saq_qat.data.open import open_data
from saq_qat.errors import SaqError
from saq_qat.models.build import build_model
from saq_qat.models.probe import check_takes_images
from saq_qat.recipe.load import parse_recipe
from saq_qat_export.rehearsal import check_deployable
from saq_qat_runtime.errors import SessionError

RECIPE = """
version: 1
name: family
model: {{name: "{name}", arguments: {arguments}}}
data: {{kind: synthetic, classes: {classes}, image_size: {side}, train_size: 16, val_size: 8}}
quant: {{weight: {{kind: saq, bits: 4}}, activation: {{kind: saq, bits: 4}}}}
train:
  batch_size: 4
  optimizer: {{kind: sgd}}
  stages: [{{kind: quantized, epochs: 1, lr: 0.01}}]
deploy: {{targets: [onnxruntime, tensorrt]}}
"""
CLASSES = 10


def tried(library: str, network: str, side: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """``exact`` with the integer kernels of ONNX Runtime, or ``refused`` with the words."""
    name, given = f"torchvision.models:{network}", arguments
    if library == "timm":
        name, given = "timm:create_model", {"model_name": network, **arguments}
    text = RECIPE.format(name=name, arguments=json.dumps(given), classes=CLASSES, side=side)
    recipe = parse_recipe(text, "family", [])
    try:
        images = open_data(recipe.data, recipe.seed)
        model = build_model(recipe.model, CLASSES)
        check_takes_images(model, side, CLASSES, name)
        rehearsal = check_deployable(model, recipe, images)
    except (SaqError, SessionError) as error:
        return {"result": "refused", "words": " ".join(str(error).split())}
    errors = [str(finding) for finding in rehearsal.findings if finding.level == "error"]
    if errors:
        return {"result": "refused", "words": errors[0]}
    kernels = rehearsal.kernels
    return {"result": "exact", "integer": kernels.integer, "total": kernels.total}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of the libraries' own models; the last line must be the result
    library, network, side, arguments = sys.argv[1:]
    print(json.dumps(tried(library, network, int(side), json.loads(arguments))))
