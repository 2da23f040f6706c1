"""A server that is killed leaves nothing behind, and one that is told to reload what is damaged goes on."""

import hashlib
import shutil
import signal
import time
from pathlib import Path

from saq_qat_runtime.session import Session
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, binary_request
from tests.runtime.serve.conftest import Launch
from tests.runtime.serve.load import Load

_RELOADS = 6


def digests(folder: Path) -> dict[str, str]:
    """What lies below a folder, by its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def open_files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def test_a_server_that_is_killed_under_load_is_started_again_at_once(
    launch: Launch, integer_bundle: Path, integer_session: Session
) -> None:
    before = digests(integer_bundle)
    process, address = launch(integer_bundle)
    with Load(address, integer_session) as load:
        load.wait_for(30)
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        end = time.monotonic() + 20
        while not load.refused and time.monotonic() < end:
            time.sleep(0.01)
    assert load.answered >= 30
    # Connections that broke, no answer that was wrong: such begins with its status.
    assert not any(problem[0].isdigit() for problem in load.lost), load.lost
    assert digests(integer_bundle) == before
    second, again = launch(integer_bundle, "--port", str(address.port))
    assert again.port == address.port
    with Load(again, integer_session) as load:
        load.wait_for(30)
    assert load.lost == []
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0


def test_damage_that_a_reload_finds_costs_no_answer_and_no_memory(
    launch: Launch, integer_bundle: Path, integer_session: Session, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(integer_bundle, root / "tiny" / "1")
    process, address = launch(root)
    descriptors = open_files(process.pid)
    damage = {"manifest.json": b"{", "model.onnx": b"no model", "golden.npz": b""}
    with Load(address, integer_session) as load:
        for reload, (name, content) in zip(range(_RELOADS), [*damage.items()] * _RELOADS, strict=False):
            version = shutil.copytree(integer_bundle, root / "tiny" / str(2 + reload))
            (version / name).write_bytes(content)
            process.send_signal(signal.SIGHUP)
            _wait_for_failures(address, 1 + reload)
            load.wait_for(5)
            shutil.rmtree(version)
        assert address.ask("GET", "/v2/models/tiny").json["versions"] == ["1"]
    assert load.lost == []
    assert address.infer(*binary_request(images(1))).status == 200
    end = time.monotonic() + 10
    while open_files(process.pid) > descriptors:
        assert time.monotonic() < end
        time.sleep(0.02)


def _wait_for_failures(address: Address, count: int) -> None:
    end = time.monotonic() + 60
    while (
        f'saq_reloads_total{{result="failed"}} {count}.0' not in address.ask("GET", "/metrics").body.decode()
    ):
        assert time.monotonic() < end
        time.sleep(0.02)
