"""A machine without a network: nothing on the way from a recipe to a bundle's answers asks for one."""

import subprocess
import sys
from pathlib import Path

from saq_qat.recipe.load import dump_recipe
from tests.faults.training.recipes import faulty_recipe

WITHOUT_A_NETWORK = """
import sys
from saq_qat.cli.main import main
asked = []
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        if not (event == "socket.connect" and isinstance(arguments[1], (str, bytes))):
            asked.append((event, arguments[1:] if event == "socket.connect" else arguments))
            raise OSError(101, "Network is unreachable")
sys.addaudithook(refuse)
for words in (["check", "recipe.yaml"], ["train", "recipe.yaml"], ["export"], ["verify"], ["report"]):
    sys.argv = ["saq-qat", *words]
    try:
        main()
    except SystemExit as left:
        if left.code:
            raise
if asked:
    sys.exit(f"asked for a network: {asked}")
"""


def test_from_a_recipe_to_a_report_nothing_asks_for_a_network(tmp_path: Path) -> None:
    stages = "train.stages=[{kind: quantized, epochs: 1, lr: 0.01}]"
    thresholds = "deploy.thresholds={max_top1_drop: 100, max_flip_rate: 1}"
    recipe = faulty_recipe(stages, "quant={weight: {bits: 4}, activation: {bits: 4}}", thresholds)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_NETWORK],
        cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip  # one value a line is a page
    assert done.returncode == 0, done.stderr[-2000:]
