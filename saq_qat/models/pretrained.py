"""Weights from a local file into a network, without ever unpickling code."""

import logging
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saq_qat.errors import ArtifactError
from saq_qat.models.attention import separate_weights

__all__ = ["PretrainedReport", "load_pretrained", "read_weights"]

_logger = logging.getLogger(__name__)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
_LISTED_KEYS = 12
_FLOATS = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2}
)
"""Which become numbers of float32; others are packed, or stand for numbers with scales elsewhere."""


@dataclass(frozen=True)
class PretrainedReport:
    """How the tensors of a file met those of a network.

    `loaded` counts tensors copied. The others list keys: `missing` are the network's alone, `unexpected` the
    file's alone, `mismatched` are in both with another shape or kind of number (and how). `prefix` was
    dropped from the file's keys.
    """

    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]
    prefix: str = ""

    def __str__(self) -> str:
        shapes = [f"{key} ({difference})" for key, difference in self.mismatched.items()]
        groups = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape or type", shapes),
        )
        found = [f"{self.loaded} tensors that match" + (f" under {self.prefix!r}" if self.prefix else "")]
        return "; ".join(found + [f"{len(keys)} {title}: {_listed(keys)}" for title, keys in groups if keys])


def load_pretrained(network: nn.Module, path: Path, *, strict: bool = True) -> PretrainedReport:
    """Copy the weights of a .safetensors file, or of one that torch.save wrote, into `network`.

    The latter is a state dict, or a dict that holds one under `state_dict`, `model` or the like. A prefix
    under which the network's keys are found (`module.` of DataParallel, `_orig_mod.` of torch.compile,
    `model.`) is dropped, and a fused `qkv` is split where the network has `q`, `k` and `v`. With
    `strict`, every key must match. Without it the head (the last linear layer, or the last layer with
    weights) keeps its initial values where it differs, and keys of the file alone are left out; the rest of
    the network must still match. What was skipped is logged and returned.

    Raises ArtifactError, and changes nothing, if the file cannot be read safely or does not fit.
    """
    target = network.state_dict()
    prefix, plain = _without_prefix(read_weights(path), target)
    weights = separate_weights(plain, target)
    report = replace(_compare(target, weights), prefix=prefix)
    head = _head_prefix(network)
    unfit = (*report.missing, *report.mismatched)
    if strict and (unfit or report.unexpected):
        raise ArtifactError(
            f"model.pretrained must hold every weight of the network and no other; '{path}' has {report}. "
            "Is it of the same model.name? If only the head differs, set model.pretrained_strict: false."
        )
    if not all(key.startswith(head) for key in unfit):
        raise ArtifactError(
            f"model.pretrained must hold every weight of the network but its head ('{head}*'); "
            f"'{path}' has {report}. Is it of the same model.name?"
        )
    network.load_state_dict(
        {
            key: value
            for key, value in weights.items()
            if key not in report.unexpected and key not in report.mismatched
        },
        strict=False,
    )
    if unfit or report.unexpected:
        _logger.warning(
            "%d tensors loaded from '%s'; the rest keep their initial values: %s", report.loaded, path, report
        )
    return report


def _without_prefix(
    weights: dict[str, Tensor], target: Mapping[str, Tensor]
) -> tuple[str, dict[str, Tensor]]:
    """The prefix under which most keys are the network's, and the weights without it."""
    counts: Counter[str] = Counter()
    for key in weights:
        parts = key.split(".")
        cuts = ((".".join(parts[:cut]), ".".join(parts[cut:])) for cut in range(len(parts)))
        counts.update(f"{before}." if before else "" for before, rest in cuts if rest in target)
    prefix = max(counts, key=lambda found: (counts[found], -len(found)), default="")
    return prefix, {key.removeprefix(prefix): value for key, value in weights.items()}


def _compare(target: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> PretrainedReport:
    mismatched = {
        key: difference
        for key in target
        if key in weights and (difference := _difference(weights[key], target[key])) is not None
    }
    # BatchNorm's step counter is absent from older files, and no arithmetic with a fixed momentum reads it.
    missing = tuple(key for key in target if key not in weights and not key.endswith(".num_batches_tracked"))
    unexpected = tuple(key for key in weights if key not in target)
    loaded = len(weights) - len(unexpected) - len(mismatched)
    return PretrainedReport(loaded, missing, unexpected, mismatched)


def _difference(found: Tensor, wanted: Tensor) -> str | None:
    if found.shape != wanted.shape:
        return f"file {list(found.shape)}, network {list(wanted.shape)}"
    if found.is_floating_point() != wanted.is_floating_point():
        return f"file {found.dtype}, network {wanted.dtype}"
    return None


def _head_prefix(network: nn.Module) -> str:
    weighted = {name: module for name, module in network.named_modules() if _has_weights(module)}
    linear = [name for name, module in weighted.items() if isinstance(module, nn.Linear)]
    names = linear or list(weighted)
    return f"{names[-1]}." if names else ""


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises ArtifactError if the file is missing, damaged, or holds anything but tensors of finite numbers.
    """
    if not path.is_file():
        raise ArtifactError(
            f"model.pretrained must be a file; there is none at '{path}' (from {Path.cwd()})."
        )
    if path.suffix == ".safetensors":
        content: object = _read_safetensors(path)
    elif path.suffix in _SUFFIXES:
        content = _read_torch(path)
    else:
        raise ArtifactError(
            "model.pretrained must end in .safetensors, or as files of torch.save do, in "
            f"{', '.join(_SUFFIXES)}; got '{path}'."
        )
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ArtifactError(
            f"model.pretrained must hold tensors by name; '{path}' holds {_describe(content)}. "
            "Save it again with torch.save(network.state_dict(), path)."
        )
    weights = {str(key): value for key, value in content.items()}
    odd = [f"{key} ({found})" for key, value in weights.items() if (found := _oddness(value))]
    if odd:
        raise ArtifactError(
            f"model.pretrained must hold dense tensors with their numbers; '{path}' has others in "
            f"{_listed(odd)}. Save them as dense ones: t.to_dense() of sparse tensors, t.dequantize() of "
            "quantized ones, t.clone() of repeated numbers, t.float() of narrow floats. Meta tensors hold "
            "none."
        )
    # Those of float64 must be numbers of float32 too, which networks hold.
    broken = [
        key
        for key, value in weights.items()
        if value.is_floating_point() and not value.to(torch.float32).isfinite().all()
    ]
    if broken:
        raise ArtifactError(
            f"model.pretrained must hold finite numbers; '{path}' has others in {_listed(broken)}. "
            "The training that wrote it diverged: take an earlier checkpoint."
        )
    return weights


def _oddness(value: Tensor) -> str | None:
    """Why a tensor is none of numbers in their places, if it is none."""
    if value.is_meta:
        return "on the meta device, without numbers"
    if value.is_quantized:
        return "quantized"
    if value.layout is not torch.strided:
        return str(value.layout).removeprefix("torch.")
    if value.is_floating_point() and value.dtype not in _FLOATS:
        return str(value.dtype).removeprefix("torch.")
    # A few bytes of a file would become terabytes.
    held, stood_for = value.untyped_storage().nbytes(), value.numel() * value.element_size()
    return f"{stood_for:,} bytes of {held:,} in the file, repeated" if stood_for > held else None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"'{path}' cannot be read as safetensors: {error}. Copy or save it again."
        ) from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"'{path}' is refused: it is damaged, or holds code beside tensors. "
            "Nothing of it was run. If you trust the file, load it with the tool that wrote it and save "
            f"network.state_dict() as .safetensors. (torch: {str(error).partition(chr(10))[0]})"
        ) from error
    # A damaged file makes torch raise whatever its pieces lead to, AssertionError for instance.
    except Exception as error:
        raise ArtifactError(
            f"'{path}' cannot be read as a torch file: {type(error).__name__}: {error}. Save it again."
        ) from error


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        kinds = {key: type(value).__name__ for key, value in content.items() if not isinstance(value, Tensor)}
        return f"a dictionary with {_listed([f'{key!r}: {kind}' for key, kind in kinds.items()])}"
    return f"a {type(content).__name__}"


def _listed(keys: Sequence[str]) -> str:
    more = f", and {len(keys) - _LISTED_KEYS} more" if len(keys) > _LISTED_KEYS else ""
    return ", ".join(keys[:_LISTED_KEYS]) + more
