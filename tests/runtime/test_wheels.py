"""Both distributions build; the runtime's wheel alone runs a bundle, every verb, with nothing heavy there."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import pytest

from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.run import export_run
from saq_qat_runtime import __version__
from tests.report.conftest import exported

__all__ = ["exported"]

ROOT = Path(__file__).parents[2]
PROJECTS = {"saq_qat": ROOT, "saq_qat_runtime": ROOT / "runtime"}
NEEDED = ("numpy", "onnxruntime", "PIL")
LARGEST_BYTES, LONGEST_SECONDS = 260_000_000, 0.6

pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="needs hatchling (extra dev)")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist of both, made without a network as for a release."""
    folder = tmp_path_factory.mktemp("dist")
    for project in PROJECTS.values():
        build(project, folder)
    return folder


def build(project: Path, folder: Path) -> None:
    """Put wheel and sdist of the project into the folder."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=project, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "SAQ_QAT_RUNTIME": f"=={__version__}"},
    )  # fmt: skip  # one value a line is a page
    assert done.returncode == 0, done.stderr


def wheel(folder: Path, name: str) -> Path:
    return folder / f"{name}-{__version__}-py3-none-any.whl"


def files(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_holds_its_packages_and_the_licence(built: Path, name: str) -> None:
    held = files(wheel(built, name))
    packages = {file.split("/")[0] for file in held}
    own = {"saq_qat": {"saq_qat", "saq_qat_export"}, "saq_qat_runtime": {"saq_qat_runtime"}}[name]
    assert packages == {*own, f"{name}-{__version__}.dist-info"}
    assert any(file.endswith("licenses/LICENSE") for file in held)
    sources = {
        path.relative_to(base).as_posix()
        for base in (ROOT, ROOT / "export", ROOT / "runtime")
        for package in own
        for path in (base / package).rglob("*.py")
    }
    assert sources <= held


def test_both_can_be_installed_side_by_side(built: Path) -> None:
    assert not files(wheel(built, "saq_qat")) & files(wheel(built, "saq_qat_runtime"))
    with zipfile.ZipFile(wheel(built, "saq_qat")) as archive:
        metadata = message_from_bytes(archive.read(f"saq_qat-{__version__}.dist-info/METADATA"))
    assert f"saq-qat-runtime=={__version__}" in metadata.get_all("Requires-Dist", [])
    with zipfile.ZipFile(wheel(built, "saq_qat_runtime")) as archive:
        metadata = message_from_bytes(archive.read(f"saq_qat_runtime-{__version__}.dist-info/METADATA"))
    needed = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert sorted(text.split(">=")[0] for text in needed) == ["numpy", "onnxruntime", "pillow"]


@pytest.mark.parametrize("name", PROJECTS)
def test_a_source_distribution_holds_what_a_wheel_is_built_from(built: Path, name: str) -> None:
    with tarfile.open(built / f"{name}-{__version__}.tar.gz") as archive:
        held = {member.split("/", 1)[1] for member in archive.getnames() if "/" in member}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= held
    if name == "saq_qat":  # pip finds the runtime beside it there too
        assert {"runtime/pyproject.toml", "runtime/saq_qat_runtime/session.py"} <= held
    assert not [file for file in held if file.startswith((".venv", "runs/"))]


@pytest.mark.parametrize("name", PROJECTS)
def test_a_release_can_be_built_again_byte_for_byte(built: Path, name: str, tmp_path: Path) -> None:
    """From the source distribution, by somebody else: another folder, time, umask and order of files."""
    source = built / f"{name}-{__version__}.tar.gz"
    unpack_elsewhere(source, tmp_path / "elsewhere")
    build(tmp_path / "elsewhere" / f"{name}-{__version__}", tmp_path / "again")
    for first in (source, wheel(built, name)):
        assert (tmp_path / "again" / first.name).read_bytes() == first.read_bytes(), first.name


def unpack_elsewhere(source: Path, folder: Path) -> None:
    """The files last to first, for their owner alone, of the year 2001."""
    before = os.umask(0o077)
    try:
        with tarfile.open(source) as archive:
            for member in reversed(archive.getmembers()):
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                path.write_bytes(content.read())
                path.chmod(member.mode & 0o700)
                os.utime(path, (10**9, 10**9))
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the runtime's wheel, numpy, onnxruntime and pillow, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin/python")]
    offline = ["install", "--quiet", "--no-index", "--no-deps", str(wheel(built, "saq_qat_runtime"))]
    subprocess.run([*pip, *offline], check=True, timeout=300)
    (packages,) = folder.glob("lib/python*/site-packages")
    for source in needed():
        (packages / source.name).symlink_to(source)
    return folder


def needed() -> Iterator[Path]:
    """The installed packages that the wheel asks for, with the libraries beside them."""
    for name in NEEDED:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        libraries = package.with_name(f"{'pillow' if name == 'PIL' else name}.libs")
        yield from (path for path in (package, libraries) if path.exists())


@pytest.fixture(scope="module")
def shipped(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of a trained network as it is copied to another machine, and its images."""
    folder = tmp_path_factory.mktemp("shipped")
    size = ProofSize(4, 40)
    export_run(exported, folder / "bundle", size=size, images=folder / "images", allow_failed_gate=True)
    return folder / "bundle", folder / "images"


def run(bare: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of the environment, which sees nothing of this one."""
    return subprocess.run(
        [str(bare / "bin" / command[0]), *command[1:]], capture_output=True, text=True, check=False,
        timeout=300, cwd=bare, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip  # one value a line is a page


@pytest.mark.parametrize(
    ("verb", "code", "told"),
    [
        (("info",), 0, "proof: "),
        (("self-test",), 0, "golden logits: "),
        (("bench", "--seconds", "0.05"), 0, "Latency at batch 8"),
        (("verify", "--data", "{images}", "--bench", "--seconds", "0.05"), 0, "PASSED on onnxruntime"),
        (("build",), 3, "this bundle is for onnxruntime only"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_verb_runs_where_nothing_else_is_installed(
    bare: Path, shipped: tuple[Path, Path], verb: tuple[str, ...], code: int, told: str
) -> None:
    bundle, images = shipped
    options = [option.format(images=images) for option in verb[1:]]
    allowed = ["--allow-failed-gate"] if verb[0] in ("self-test", "verify") else []
    done = run(bare, "saq-qat-runtime", verb[0], str(bundle), *options, *allowed)
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_small_and_soon_ready(bare: Path, shipped: tuple[Path, Path]) -> None:
    (packages,) = bare.glob("lib/python*/site-packages")
    walked = (
        Path(parent) / file for parent, _, names in os.walk(packages, followlinks=True) for file in names
    )
    assert sum(file.stat().st_size for file in walked) < LARGEST_BYTES
    program = (
        "import json, sys, time\n"
        "from saq_qat_runtime.session import Session\n"
        f"Session.load({str(shipped[0])!r}, threads=1, allow_failed_gate=True)\n"
        # of this process alone, so that a busy machine changes nothing
        "print(json.dumps([time.process_time(), sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    seconds, loaded = json.loads(run(bare, "python", "-I", "-c", program).stdout)
    assert seconds < LONGEST_SECONDS
    assert not {"torch", "onnx", "pydantic", "typer", "rich", "saq_qat", "saq_qat_export"} & set(loaded)
