"""The verdicts of the rules beside those of TensorRT-RTX, which parses and builds every graph for real."""

from pathlib import Path

import onnx
import pytest

from saq_qat_export.lint import RULES
from saq_qat_runtime.errors import EngineError
from saq_qat_runtime.tensorrt.build.engine import build_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.engine_record import Audit
from tests.export.lint.lint_cases import CASES
from tests.export.lint.lint_speed_cases import SPEED_CASES

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
pytestmark = pytest.mark.slow  # builds an engine of every case

ALL = {**CASES, **SPEED_CASES}
OPTIONS = BuildOptions(flavour="tensorrt-rtx", batch=(1, 2, 8), optimization_level=0)

REFUSED = ("TRT003", "TRT004", "TRT005", "TRT010", "TRT011", "TRT012", "TRT013", "TRT015", "TRT016", "TRT019")
"""The parser or the builder refuses the bad graph, or the builder crashes (TRT004)."""

FLOAT = ("TRT006", "TRT007", "TRT008", "TRT009", "TRT014")
"""It builds, and the layer computes in float."""

TAKEN = ("TRT001", "TRT002", "TRT018", "TRT020")
"""It builds as int8. Others may not (001, 018), and codes are wrong (002) or not the recipe's (020)."""


def audit(model: onnx.ModelProto, folder: Path) -> Audit:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return build_engine(path, OPTIONS).record.audit


def test_every_rule_about_building_has_a_verdict() -> None:
    """But TRT017, which is about profiles: the builder makes its own here."""
    judged = {*REFUSED, *FLOAT, *TAKEN, "TRT017"}
    assert judged == {rule.id for rule in RULES if rule.id < "TRT100"}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_the_rules_forbid_is_refused(rule: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        audit(ALL[rule](False), tmp_path)


@pytest.mark.parametrize("rule", FLOAT)
def test_what_the_rules_call_float_is_float(rule: str, tmp_path: Path) -> None:
    assert audit(ALL[rule](False), tmp_path).integer == 0


@pytest.mark.parametrize("rule", TAKEN)
def test_what_this_version_takes_is_known(rule: str, tmp_path: Path) -> None:
    assert audit(ALL[rule](False), tmp_path).integer == 1


@pytest.mark.parametrize("rule", sorted(ALL.keys() - {"TRT014", "TRT108", "TRT111"}))
def test_mended_graphs_build_and_run_as_int8(rule: str, tmp_path: Path) -> None:
    """All but those without a layer of int8: weight-only int4, a pool alone, attention."""
    found = audit(ALL[rule](True), tmp_path)
    assert found.integer == found.total > 0
