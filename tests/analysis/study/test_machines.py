"""A study says where its runs were trained, and warns if not all of them on machines of one kind."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saq_qat.analysis.study.machines import Machine, machine_notes, read_machine
from saq_qat.analysis.study.text import notes
from saq_qat.errors import ArtifactError
from saq_qat.train.log import environment
from tests.analysis.study.results import study_result

ONE = Machine("EPYC", "AVX512", "cpu", "1", "2.15")
OTHER = replace(ONE, instructions="AVX2")


def test_what_training_notes_of_its_machine_is_read_back(tmp_path: Path) -> None:
    facts = environment(torch.device("cpu"), 1)
    (tmp_path / "env.json").write_text(json.dumps(facts))
    machine = read_machine(tmp_path)
    assert machine is not None
    assert machine.processor not in ("", None)
    assert machine.instructions == torch.backends.cpu.get_cpu_capability()
    assert (machine.device, machine.torch) == ("cpu", torch.__version__)


def test_a_note_that_lacks_facts_has_them_unknown_and_a_missing_one_is_none(tmp_path: Path) -> None:
    assert read_machine(tmp_path) is None
    (tmp_path / "env.json").write_text('{"torch": "2.15", "device": "cpu", "processor": ""}')
    assert read_machine(tmp_path) == Machine("unknown", "unknown", "cpu", "unknown", "2.15")


def test_a_pipe_in_its_place_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "env.json")
    with pytest.raises(ArtifactError, match=r"env\.json is damaged"):
        read_machine(tmp_path)


@pytest.mark.parametrize("content", ["[", "[]", "\x00"])
def test_a_damaged_note_is_said_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "env.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"env\.json is damaged.*delete it"):
        read_machine(tmp_path)


def test_machines_of_two_kinds_are_told_with_the_runs_of_each() -> None:
    told = list(machine_notes([("a-seed0", ONE), ("b-seed0", OTHER), ("a-seed1", ONE), ("b-seed1", None)]))
    assert "2 kinds of machine" in told[0] and "spread" in told[0]
    assert told[1:] == [f"a-seed0, a-seed1: {ONE}.", f"b-seed0: {OTHER}."]
    assert "instructions AVX2" in told[2]


def test_the_notes_of_a_study_name_its_machine() -> None:
    result = study_result({"a": {0: 90.0}}, [], machine=ONE)
    assert (
        "Trained on one kind of machine, as far as runs say: processor EPYC, instructions AVX512"
        in "\n".join(notes(result))
    )
    assert "machine" not in "\n".join(notes(study_result({"a": {0: 90.0}}, [])))
