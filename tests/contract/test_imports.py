"""Light things stay light: the runtime and the small verbs work where torch is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "saq_qat/recipe/templates/digits.yaml"
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "sklearn")
ABSENT = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
"""Importing a module that is None in sys.modules fails as if it were not installed."""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ABSENT + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


def test_the_runtime_imports_without_torch_or_an_engine() -> None:
    root = ROOT / "runtime"
    files = sorted((root / "saq_qat_runtime").rglob("[!_]*.py"))
    files = [file for file in files if file.parent.name != "web"]  # serve.web has an extra of its own
    modules = (".".join(file.relative_to(root).with_suffix("").parts) for file in files)
    program = "".join(f"import {module}\n" for module in modules)
    absent = "sys.modules.update(dict.fromkeys(('pydantic', 'ruamel', 'typer', 'rich', 'saq_qat')))\n"
    done = run("import sys; sys.path.insert(0, 'runtime')\n" + absent + program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["schema"], ["init", "--list"], ["show", str(TEMPLATE)]])
def test_the_small_verbs_work_without_torch(arguments: list[str]) -> None:
    done = run("from saq_qat.cli.main import main; main()", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_is_quick_because_it_reads_no_recipe_and_no_numpy() -> None:
    done = run(
        "from saq_qat.cli.main import main\n"
        "slow = {'numpy', 'ruamel.yaml', 'pydantic', 'PIL'}\n"
        "try: main()\n"
        "finally: print(sorted(slow & sys.modules.keys()), file=sys.stderr)",
        "--help",
    )
    assert done.stderr.strip() == "[]"


def test_a_network_of_our_own_is_checked_without_what_takes_seconds_to_import() -> None:
    exporter = ("onnxscript.function_libs", "torch.onnx._internal.exporter._core")
    slow = ("torchvision", "sklearn.utils", *exporter, "torch._dynamo")
    program = f"import sys; sys.modules.update(dict.fromkeys({slow!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "from saq_qat.cli.main import main; main()", "check", str(TEMPLATE)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
    )  # fmt: skip  # one value a line is a page
    assert done.returncode == 0, done.stderr
    assert "planned as integer: 22/22 for onnxruntime" in done.stdout
