"""What is named and is no such thing: pipes, devices, odd tensors, a log in another encoding, huge sizes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from pytest import CaptureFixture, MonkeyPatch

from saq_qat.cli.console import newest_run
from saq_qat.cli.train import train
from saq_qat.data.open import open_data
from saq_qat.errors import ArtifactError, DataError, RecipeError
from saq_qat.models.pretrained import read_weights
from saq_qat.recipe.load import dump_recipe, load_recipe
from saq_qat.report.predictions import read_predictions
from saq_qat.train.log import log_tail, read_log
from saq_qat.train.run import run_training
from saq_qat_export.lint.reading import read_model
from tests.faults.training.recipes import copied, faulty_recipe


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Nobody writes into it: to open it waits for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.timeout(60)
def test_a_recipe_that_is_a_pipe_is_refused_before_it_is_opened(pipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"pipe: cannot be read: a named pipe.*save it as a file"):
        load_recipe(pipe)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_a_recipe_that_is_a_device_is_refused_before_it_is_opened(device: str, tmp_path: Path) -> None:
    link = tmp_path / "recipe.yaml"
    link.symlink_to(device)
    for path in (Path(device), link):
        with pytest.raises(RecipeError, match="a device"):
            load_recipe(path)


@pytest.mark.timeout(60)
def test_a_recipe_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match="longer than"):
        load_recipe(huge)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_a_pipe_or_a_device_is_named(tmp_path: Path, workers: int) -> None:
    for split in ("train", "val"):
        for label in ("ant", "bee"):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / label / "0.png")
    os.mkfifo(tmp_path / "train" / "ant" / "1.png")
    recipe = faulty_recipe(
        f"data={{kind: imagefolder, root: {tmp_path}, image_size: 8, resize: 8, workers: {workers}}}",
        "train.batch_size=2",
    )
    with pytest.raises(DataError, match=r"ant/1\.png' is refused.*a named pipe.*save it as a file"):
        run_training(recipe, tmp_path / "run")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "sha256.json"])
def test_a_file_of_a_checkpoint_that_is_a_pipe_is_damage(stopped: Path, tmp_path: Path, name: str) -> None:
    run = copied(stopped, tmp_path / "run")
    for folder in ("last", "last.previous"):
        (run / "checkpoints" / folder / name).unlink()
        os.mkfifo(run / "checkpoints" / folder / name)
    with pytest.raises(ArtifactError, match=r"a named pipe"):
        run_training(faulty_recipe(), run, resume=True)


@pytest.mark.parametrize("name", ["state.json", "sha256.json"])
def test_a_file_of_a_checkpoint_of_a_terabyte_is_not_read(stopped: Path, tmp_path: Path, name: str) -> None:
    run = copied(stopped, tmp_path / "run")
    for folder in ("last", "last.previous"):
        os.truncate(run / "checkpoints" / folder / name, 1 << 40)
    with pytest.raises(ArtifactError, match=rf"{name}.*1,099,511,627,776 bytes, and such a file has"):
        run_training(faulty_recipe(), run, resume=True)


READERS: dict[str, Callable[[Path], object]] = {
    "a log": read_log,
    "the end of a log": log_tail,
    "a graph to check": read_model,
    "predictions": lambda path: read_predictions(path, "0" * 64),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_pipe_in_the_place_of_any_other_file_is_not_waited_for(
    pipe: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises((ArtifactError, OSError), match="a named pipe, where only a regular file is read"):
        read(pipe)


@pytest.mark.timeout(120)
def test_a_log_that_is_a_pipe_is_not_written_to(stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path / "run")
    (run / "log.jsonl").unlink()
    os.mkfifo(run / "log.jsonl")
    with pytest.raises(ArtifactError, match=r"log\.jsonl: is no regular file.*Put log\.jsonl back"):
        run_training(faulty_recipe(), run, resume=True)


ODD_TENSORS = {
    "sparse_coo": lambda: torch.eye(3).to_sparse(),
    "sparse_csr": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.empty(3, device="meta"),
    "repeated": lambda: torch.zeros(1).expand(1 << 40),
    "quantized": lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")  # torch's, of sparse CSR tensors in beta and of quantized ones
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_pretrained_tensors_without_numbers_in_their_places_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"good.weight": torch.eye(3), "odd.weight": ODD_TENSORS[kind]()}, path)
    with pytest.raises(ArtifactError, match=r"weights\.pth.*(Save|save)"):
        read_weights(path)


def test_pretrained_floats_that_are_packed_or_too_large_are_named(tmp_path: Path) -> None:
    packed, large = tmp_path / "packed.safetensors", tmp_path / "large.pth"
    header = b'{"odd.weight": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}'
    packed.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    torch.save({"odd.weight": torch.full((3,), 1e300, dtype=torch.float64)}, large)
    with pytest.raises(ArtifactError, match=r"packed\.safetensors.*(Save|save)"):
        read_weights(packed)
    with pytest.raises(ArtifactError, match=r"finite numbers; .*large\.pth.*odd\.weight"):
        read_weights(large)


STEP = b'{"event": "step", "step": 1}\n'
NO_LOGS = {
    "not UTF-8": (STEP + b"\xff\xfe\x00\n" + STEP, 2),
    "UTF-16": ((STEP.decode() * 3).encode("utf-16"), 1),
    "a list": (STEP + b"[1]\n" + STEP, 2),
    "no event": (STEP + b'{"step": 2}\n' + STEP, 2),
    "an event that is a number": (STEP + b'{"event": 5, "step": 2}\n', 2),
    "a step that is text": (STEP + b'{"event": "step", "step": "2"}\n', 2),
    "a loss that is text": (STEP + b'{"event": "step", "step": 2, "loss": "low"}\n', 2),
    "an epoch without its stage": (STEP + b'{"event": "epoch", "step": 2, "epoch": 1, "loss": 1.5}\n', 2),
    "clip levels that are none": (STEP + b'{"event": "step", "step": 2, "clip_levels": {"a": "b"}}\n', 2),
    "text": (b"hello\nworld\n", 1),
    "nested": (b"[" * 100_000 + b"\n" + b"{}\n", 1),
}


@pytest.mark.parametrize("kind", NO_LOGS)
def test_a_log_that_is_none_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    content, line = NO_LOGS[kind]
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"log\.jsonl:{line}: no line of a log"):
        read_log(path)


def test_a_line_that_a_kill_cut_short_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"event": "step", "step": 1}\n{"event": "ste')
    assert [line["step"] for line in read_log(path)] == [1]


def test_a_report_over_a_log_in_another_encoding_is_a_sentence(stopped: Path, tmp_path: Path) -> None:
    from saq_qat.cli.report import report

    run = copied(stopped, tmp_path / "run")
    (run / "log.jsonl").write_bytes("{}\n".encode("utf-16"))
    with pytest.raises(ArtifactError, match=r"log\.jsonl:1"):
        report([run])


@pytest.mark.parametrize("kind", ["digits", "synthetic", "imagefolder, root: x", "cifar10, root: x"])
@pytest.mark.parametrize("size", [100_000, 10**12, 0, -1])
def test_a_size_that_no_network_takes_is_refused_with_its_place(tmp_path: Path, kind: str, size: int) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(faulty_recipe()))
    with pytest.raises(RecipeError, match=r"image_size: must be at (most 4096|least 1)"):
        load_recipe(recipe, [f"data={{kind: {kind}, image_size: {size}}}"])


@pytest.mark.parametrize("data", ["kind: digits", "kind: synthetic, train_size: 100000, val_size: 1000"])
def test_images_that_fit_no_memory_are_counted_before_they_are_made(data: str) -> None:
    recipe = faulty_recipe(f"data={{{data}, image_size: 4096}}")
    with pytest.raises(RecipeError, match=r"images of 4096x4096 pixels.*GB"):
        open_data(recipe.data, 0)


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("saq_qat.cli.train.deployable", lambda *_: ())
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(faulty_recipe()))
    return path


def test_a_refused_run_leaves_no_folder_that_counts_as_the_newest(recipe_file: Path) -> None:
    """Refused by ``train``, behind all that ``check`` would see."""
    with pytest.raises(ArtifactError, match="no run"):
        train(recipe_file, ["train.teacher={run: nowhere}"])
    assert not list(Path("runs").glob("*/*"))
    train(recipe_file)
    finished = newest_run()
    with pytest.raises(ArtifactError, match="no run"):
        train(recipe_file, ["train.teacher={run: nowhere}"])
    assert newest_run() == finished
    assert [finished] == list(Path("runs").glob("*/*"))


def test_a_folder_without_its_resolved_recipe_is_no_run(
    recipe_file: Path, capsys: CaptureFixture[str]
) -> None:
    train(recipe_file)
    finished = newest_run()
    killed = Path("runs", "faults", "99991231-235959-abcd")
    killed.mkdir()
    (killed / "recipe.yaml").write_text("version: 1")
    assert newest_run() == finished
