"""Models that ask for more memory or time than a machine has: refused before an engine sees them."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from saq_qat_runtime.bundle.onnx_limits import refuse_unsafe
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.openvino import OpenVinoBackend
from tests.faults.load.bombs import BOMBS, HARMLESS, HIDDEN, as_first_step, behind
from tests.faults.load.hidden_costs import DAYS, LARGER, REPEATED, SUBTRACTED
from tests.runtime.networks import LABELS, constant, images


@pytest.mark.parametrize("build", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_with_the_node_and_the_reason(build: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(ModelError, match=r"Export (it|the bundle) again|has \d+ bytes"):
        refuse_unsafe(build().SerializeToString())


@pytest.mark.parametrize("build", REPEATED.values(), ids=REPEATED.keys())
def test_a_constant_that_repeats_one_image_is_refused(build: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(ModelError, match="cannot be told beforehand"):
        refuse_unsafe(build().SerializeToString())


@pytest.mark.parametrize("build", LARGER.values(), ids=LARGER.keys())
def test_a_parameter_that_engines_enlarge_an_image_for_is_refused(
    build: Callable[[], onnx.ModelProto],
) -> None:
    with pytest.raises(ModelError, match=r"does not fit into|cannot be told beforehand"):
        refuse_unsafe(build().SerializeToString())


@pytest.mark.parametrize("build", DAYS.values(), ids=DAYS.keys())
def test_a_model_that_takes_days_is_refused(build: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(ModelError, match=r"operations with all before it|a window of \d+ over \d+ pixels"):
        refuse_unsafe(build().SerializeToString())


@pytest.mark.parametrize("build", SUBTRACTED.values(), ids=SUBTRACTED.keys())
def test_a_size_below_zero_makes_no_room_for_others(build: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(ModelError, match="sizes are 0 or more"):
        refuse_unsafe(build().SerializeToString())


@pytest.mark.parametrize("build", HIDDEN.values(), ids=HIDDEN.keys())
def test_a_bomb_in_disguise_is_refused(build: Callable[[], bytes]) -> None:
    with pytest.raises(ModelError):
        refuse_unsafe(build())


MISFITS: dict[str, Callable[[], onnx.ModelProto]] = {
    "a Slice without an end": lambda: as_first_step("Slice"),
    "a GRU whose weights are one number": lambda: as_first_step("GRU", np.float32(1), np.float32(1)),
    "a ConvTranspose whose bias is the image": lambda: behind(
        [helper.make_node("ConvTranspose", ["image", "weight", "image"], ["made"])],
        [constant("weight", np.ones((3, 4, 3, 3), np.float32))],
    ),
    "a Gather of another axis": lambda: as_first_step("Gather", np.int64(0), axis=9),
}


@pytest.mark.parametrize("build", MISFITS.values(), ids=MISFITS.keys())
def test_an_operator_of_inputs_that_do_not_fit_is_refused(
    build: Callable[[], onnx.ModelProto],
) -> None:
    with pytest.raises(ModelError, match=r"The model.s \w+ is refused"):
        refuse_unsafe(build().SerializeToString())


@pytest.mark.parametrize("build", HARMLESS.values(), ids=HARMLESS.keys())
@pytest.mark.parametrize("engine", [OnnxRuntimeBackend, OpenVinoBackend])
def test_harmless_models_with_the_same_operators_run(
    build: Callable[[], onnx.ModelProto], engine: type[OnnxRuntimeBackend | OpenVinoBackend]
) -> None:
    content = build().SerializeToString()
    for count in (1, 3):
        assert engine(content, threads=1).run({"image": images(count)})["logits"].shape == (count, LABELS)


def test_a_graph_of_ones_own_may_have_any_operator() -> None:
    content = BOMBS["RandomNormalLike"]().SerializeToString()
    OnnxRuntimeBackend(content, threads=1, any_operators=True).run({"image": images(1)})


def test_a_manifest_cannot_ask_for_an_endless_image() -> None:
    with pytest.raises(ModelError, match="7000 at most, got 100000"):
        Preprocessing(100_000, None, 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


IN_TWO_GIGABYTES = """
import resource, sys
from pathlib import Path
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.session import Session
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        Session.load(folder, threads=1)
        print(folder.name, "loaded")
    except ModelError:
        print(folder.name, "refused")
# The kernel's other figure, ru_maxrss, begins with the memory of the process that started this one.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) >> 10)
"""


def test_in_two_gigabytes_every_hostile_bundle_is_a_model_error(
    bundle: Path, replace_model: Callable[[bytes], None], tmp_path: Path
) -> None:
    folders = tmp_path / "hostile"
    folders.mkdir()
    contents = [
        build().SerializeToString() for build in (BOMBS | REPEATED | LARGER | DAYS | SUBTRACTED).values()
    ]
    contents += [build() for build in HIDDEN.values()]
    for place, content in enumerate(contents):
        replace_model(content)
        shutil.copytree(bundle, folders / f"{place:03}")
    command = [sys.executable, "-c", IN_TWO_GIGABYTES, str(folders)]
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *outcomes, peak = done.stdout.splitlines()
    assert outcomes == [f"{place:03} refused" for place in range(len(contents))]
    assert int(peak) < 1024
