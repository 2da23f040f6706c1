"""The processor is named as the system names it, and never by nothing."""

from pathlib import Path

import pytest

from saq_qat_runtime.processor import cpu_model


def test_the_first_processor_that_is_listed_names_the_machine(tmp_path: Path) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor\t: 0\nmodel name\t: Z: 80\n\nprocessor\t: 1\nmodel name\t: other\n")
    assert cpu_model(listed) == "Z: 80"


@pytest.mark.parametrize("content", [None, b"", b"processor : 0\n", b"model name : \xff"])
def test_a_system_that_lists_none_is_asked_otherwise(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "cpuinfo"
    if content is not None:
        listed.write_bytes(content)
    monkeypatch.setattr("platform.processor", lambda: "i386")
    assert cpu_model(listed) == "i386"
    monkeypatch.setattr("platform.processor", lambda: "")
    assert cpu_model(listed) == "unknown"
