"""verify.json: a proof, with the checkpoint and the bundle it is about."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from saq_qat_export.proof.prove import Proof
from saq_qat_runtime.bundle.result_files import decode_result, read_result, write_result

__all__ = ["Verification", "read_verification", "write_verification"]

SCHEMA_VERSION = 2
_FIX = "Run 'saq-qat verify' again."


@dataclass(frozen=True)
class Verification:
    """A proof and its subject.

    Attributes:
        created: UTC, ISO 8601.
        checkpoint_sha256: of the model.safetensors it was lowered from.
        bundle_sha256: of the manifest.json of the bundle that was compared.
    """

    created: str
    checkpoint_sha256: str
    bundle_sha256: str
    proof: Proof

    @classmethod
    def of(cls, proof: Proof, checkpoint_sha256: str, bundle_sha256: str) -> "Verification":
        """The proof as of now."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), checkpoint_sha256, bundle_sha256, proof)


def write_verification(verification: Verification, path: Path) -> None:
    """Write ``path``; the proof's own fields stand beside those of its subject.

    Raises:
        ResultError: a number is not finite, or the file cannot be written.
    """
    values = asdict(verification)
    proof = values.pop("proof")
    del proof["agreement"]["fake_quant"]  # a line an image, which expected.csv has in the bundle
    write_result(path, {"schema_version": SCHEMA_VERSION, **values, **proof})


def read_verification(path: Path) -> Verification:
    """Read ``path``.

    Raises:
        VersionError: it is of another version. ModelError: it is damaged.
    """
    values = read_result(path, SCHEMA_VERSION, _FIX)
    subject = ("created", "checkpoint_sha256", "bundle_sha256")
    proof = {name: value for name, value in values.items() if name not in ("schema_version", *subject)}
    head = {name: values[name] for name in subject if name in values}
    return decode_result(Verification, {**head, "proof": proof}, path, _FIX)
