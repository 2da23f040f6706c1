"""Servers in threads of the test's own process, on ports of the loopback device that nobody else has."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import saq_qat_runtime
from saq_qat_runtime.serve.settings import ServeSettings
from saq_qat_runtime.session import Session
from tests.runtime.bundles import build_manifest, file_record, write_expected
from tests.runtime.networks import CODES, images, quantized_network, run_plain
from tests.runtime.serve.client import Address

__all__ = ["Launch", "Start", "starting", "write_bundle"]

Start = Callable[..., Address]
Launch = Callable[..., tuple["subprocess.Popen[str]", Address]]


def write_bundle(folder: Path, content: bytes | None = None) -> Path:
    """The tiny integer network of `networks`, or another model with its inputs and outputs, as a bundle."""
    folder.mkdir(parents=True)
    own = quantized_network().SerializeToString()
    (folder / "model.onnx").write_bytes(content or own)
    logits, codes = run_plain(content or own, images(4), () if content else CODES)
    np.savez(folder / "golden.npz", inputs=images(4), logits=logits, **codes)  # type: ignore[arg-type]  # no array is called allow_pickle
    model, golden = (file_record(folder / name) for name in ("model.onnx", "golden.npz"))
    manifest = build_manifest(model, golden, write_expected(folder, logits))
    if content:  # whose layers the manifest does not describe
        layers = tuple(dataclasses.replace(layer, integer=False) for layer in manifest.layers)
        manifest = dataclasses.replace(manifest, layers=layers, tensors=())
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


@pytest.fixture(scope="session")
def integer_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="session")
def integer_session(integer_bundle: Path) -> Iterator[Session]:
    with Session.load(integer_bundle, threads=1) as session:
        yield session


@pytest.fixture(scope="session")
def start_once() -> Iterator[Start]:
    """Starts servers that live as long as the tests do."""
    yield from starting()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers that live as long as one test."""
    yield from starting()


@pytest.fixture(scope="session")
def server(start_once: Start, integer_bundle: Path) -> Address:
    """One server of the tiny network, with settings as they are by default."""
    return start_once(integer_bundle)


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts `python -m saq_qat_runtime.serve` as a process, and waits until it is ready."""
    processes: list[subprocess.Popen[str]] = []

    def launch(root: Path, *options: str) -> tuple["subprocess.Popen[str]", Address]:
        command = [sys.executable, "-m", "saq_qat_runtime.serve", str(root), "--port", "0", "--threads", "1"]
        environment = {**os.environ, "PYTHONPATH": str(Path(saq_qat_runtime.__file__).parents[1])}
        process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("ready on"):
                return process, Address("127.0.0.1", int(line.rpartition(":")[2]))
        raise AssertionError(f"not ready, exit code {process.wait()}")

    yield launch
    for process in processes:
        process.kill()
        process.communicate()


def starting() -> Iterator[Start]:
    """Gives a function that starts servers, and stops them behind its only step."""
    from saq_qat_runtime.serve.web.server import BundleServer, listen
    from saq_qat_runtime.serve.web.serving import Serving

    running: list[tuple[BundleServer, Serving, threading.Thread]] = []

    def start(root: Path, settings: ServeSettings | None = None, *, wait: bool = True) -> Address:
        settings = settings or ServeSettings(threads=1, drain_seconds=0.0)
        serving = Serving(root, settings)
        listening = listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        server = BundleServer(serving, lambda _line: None)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, serving, thread))
        end = time.monotonic() + 30
        while wait and not serving.catalogue.ready:
            assert server.failure is None, server.failure
            assert time.monotonic() < end
            time.sleep(0.01)
        return Address("127.0.0.1", port, serving, server)

    yield start
    for server, serving, thread in running:
        server.should_exit = True
        thread.join(30)
        serving.close()
        assert not thread.is_alive()
