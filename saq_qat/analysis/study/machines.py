"""Where the runs of a study were trained: other instructions give other last bits, and so other networks."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from saq_qat.errors import ArtifactError
from saq_qat_runtime.bundle.regular_file import read_regular

__all__ = ["Machine", "machine_notes", "read_machine"]

_FILE, _UNKNOWN = "env.json", "unknown"


@dataclass(frozen=True)
class Machine:
    """What decides the last bits of float32 beside a recipe; "unknown" where training did not note it.

    A run that went on elsewhere has that of the machine on which it ended.

    Attributes:
        processor: the name that the system gives it. instructions: those that torch's kernels use.
        device: "cpu", or the name of a GPU. threads: of torch. torch: its version.
    """

    processor: str
    instructions: str
    device: str
    threads: str
    torch: str

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))


def read_machine(run: Path) -> Machine | None:
    """The machine of a run; None if the run has no note of it.

    Raises:
        ArtifactError: the note is damaged.
    """
    path = run / _FILE
    if not os.path.lexists(path):
        return None
    try:
        facts = json.loads(read_regular(path))
        return Machine(**{field.name: str(facts.get(field.name) or _UNKNOWN) for field in fields(Machine)})
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is damaged: {error}. It says where the run was trained; delete it, and the study goes "
            "on without."
        ) from error


def machine_notes(trained: Iterable[tuple[str, Machine | None]]) -> Iterator[str]:
    """Where runs, by their names, were trained; a warning if not all on machines of one kind."""
    where: dict[Machine, list[str]] = {}
    for run, machine in trained:
        if machine is not None:
            where.setdefault(machine, []).append(run)
    if len(where) == 1:
        yield f"Trained on one kind of machine, as far as runs say: {next(iter(where))}."
    elif where:
        yield (
            f"Trained on {len(where)} kinds of machine, which make other networks of one seed: part of the "
            "spread, and of differences between arms, is theirs."
        )
        yield from (f"{', '.join(runs)}: {machine}." for machine, runs in where.items())
