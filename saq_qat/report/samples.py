"""samples.json: every latency of a measurement, beside the summary in bench.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saq_qat.errors import ArtifactError
from saq_qat_runtime.bench.record import SCHEMA_VERSION, Bench
from saq_qat_runtime.bundle.result_files import decode_result, read_result

__all__ = ["read_samples"]

_FIX = "Run 'saq-qat bench' again."


@dataclass(frozen=True)
class _Samples:
    """As ``write_bench`` writes them: nanoseconds by batch size and candidate."""

    schema_version: int
    created: str
    checkpoint_sha256: str
    bundle_sha256: str
    nanoseconds: dict[str, dict[str, tuple[int, ...]]]


def read_samples(path: Path, bench: Bench) -> Mapping[int, Mapping[str, tuple[int, ...]]] | None:
    """Nanoseconds by batch size and candidate of the very measurement ``bench``; None if they are of another.

    Raises:
        VersionError: it is of another version. ModelError, ArtifactError: it is damaged.
    """
    found = decode_result(_Samples, read_result(path, SCHEMA_VERSION, _FIX), path, _FIX)
    if (found.created, found.bundle_sha256) != (bench.created, bench.bundle_sha256):
        return None
    try:
        return {int(batch): by_name for batch, by_name in found.nanoseconds.items()}
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: a batch size is no number. {_FIX}") from error
