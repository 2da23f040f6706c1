"""The models of `models`, loaded and run by OpenVINO."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.openvino import OpenVinoBackend
from tests.fuzz.bundles import refused
from tests.fuzz.models import harmed_model
from tests.fuzz.surface import Case, Surface
from tests.runtime.networks import images, quantized_network

__all__ = ["SURFACE"]


def _run(content: bytes) -> None:
    OpenVinoBackend(content, threads=1).run({"image": images(1)})


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    _run(quantized_network().SerializeToString())  # what the engine takes once is not counted

    def case(random: Random) -> str:
        content = harmed_model(random)
        (folder / "input.onnx").write_bytes(content)
        try:
            _run(content)
        except SessionError as error:
            return refused(error)
        return "ran"

    yield case


SURFACE = Surface("openvino_models", _opened, mebibytes=1280)
