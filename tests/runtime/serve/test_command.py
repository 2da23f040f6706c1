"""What is typed becomes the settings, and what is missing has a name."""

import argparse
import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest

import saq_qat_runtime
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.command import _say, add_arguments, settings_of
from saq_qat_runtime.serve.settings import Bounds, ServeSettings, ShadowSettings

RUNTIME = Path(saq_qat_runtime.__file__).parents[1]


def settings(*arguments: str) -> ServeSettings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return settings_of(parser.parse_args(["bundle", *arguments]))


def test_without_options_everything_is_as_by_default() -> None:
    assert settings() == ServeSettings()
    assert ServeSettings().host == "127.0.0.1"


def test_every_option_arrives() -> None:
    given = (
        "--host 0.0.0.0 --port 9000 --backend onnxruntime --threads 3 --allow-failed-gate --max-batch 5 "
        "--batch-delay-ms 2.5 --queue 7 --deadline 3 --drain-seconds 0 --shutdown-seconds 9 --max-body-mib 2 "
        "--max-buffered-mib 4 --header-seconds 1 --body-seconds 2 --send-seconds 6 --max-pixels 99 "
        "--connections 11 --shadow b --shadow-backend openvino --shadow-share 0.5 --shadow-keep k "
        "--shadow-keep-limit 3"
    )
    bounds = Bounds(2 * 2**20, 4 * 2**20, 99, 7, 11, 3.0, 1.0, 2.0, 6.0)
    shadow = ShadowSettings(Path("b"), "openvino", 0.5, Path("k"), 3)
    assert settings(*given.split()) == ServeSettings(
        "0.0.0.0", 9000, "onnxruntime", 3, 5, 0.0025, 0.0, 9.0, True, bounds, shadow
    )


@pytest.mark.parametrize(
    "option",
    ["--port=-1", "--port=70000", "--max-batch=0", "--threads=0", "--batch-delay-ms=-1", "--queue=0",
     "--deadline=0", "--deadline=nan", "--deadline=inf", "--max-body-mib=0", "--max-pixels=0",
     "--connections=0", "--header-seconds=-2"],
)  # fmt: skip  # one value a line is a page
def test_a_number_that_bounds_nothing_is_refused(option: str) -> None:
    with pytest.raises(InputError, match=r"must be"):
        settings(option)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    head = f"import sys; sys.path.insert(0, {str(RUNTIME)!r})\n"
    command = [sys.executable, "-c", head + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


MAIN = "from saq_qat_runtime.serve.__main__ import main; sys.exit(main())"


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_without_the_extra_the_command_names_it(missing: str, integer_bundle: Path) -> None:
    done = run(f"sys.modules[{missing!r}] = None; {MAIN}", str(integer_bundle))
    assert done.returncode == 4
    assert "pip install 'saq-qat-runtime[serve]'" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_extra() -> None:
    missing = "sys.modules.update(dict.fromkeys(('fastapi', 'uvicorn', 'pydantic', 'onnxruntime')))"
    done = run(f"{missing}; {MAIN}", "--help")
    assert done.returncode == 0, done.stderr
    assert "--batch-delay-ms" in done.stdout


def test_what_cannot_be_loaded_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    done = run(MAIN, str(tmp_path), "--port", "0")
    assert done.returncode == 3
    assert "holds no model" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_named(integer_bundle: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(MAIN, str(integer_bundle), "--port", port)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_that_takes_no_more_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Full(io.TextIOBase):
        def write(self, text: str) -> int:
            tried.append(text)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stderr", Full())
    _say("ready")
    assert tried == ["ready"]
