"""Images run together only where that was seen to change no bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saq_qat_runtime.errors import ClosedError
from saq_qat_runtime.promises import read_golden
from saq_qat_runtime.serve.batch_rule import measure_batch_rule, one_by_one, probe_images
from saq_qat_runtime.serve.batcher import Floats
from saq_qat_runtime.session import Session
from tests.runtime.networks import images
from tests.runtime.serve.engines import SlowEngine, image


def going() -> bool:
    return False


def sums(batch: Floats) -> Floats:
    totals: Floats = batch.sum(axis=(1, 2, 3), dtype=np.float32)[:, np.newaxis]
    return totals


def test_an_engine_whose_answers_do_not_depend_on_the_batch_runs_batches() -> None:
    rule = measure_batch_rule(sums, images(6), 6, going)
    assert rule.together
    assert "up to 6 images a run" in rule.label


@pytest.mark.parametrize("size", [2, 3, 5])
def test_one_bit_at_one_batch_size_is_enough_to_run_one_image_at_a_time(size: int) -> None:
    def odd(batch: Floats) -> Floats:
        found = sums(batch)
        if len(batch) == size:
            found[-1] = np.nextafter(found[-1], np.float32(np.inf))
        return found

    rule = measure_batch_rule(odd, images(6), 6, going)
    assert not rule.together
    assert rule.differing == size
    assert f"batch size {size}" in rule.label


def test_an_answer_that_depends_on_the_other_images_is_seen() -> None:
    def mixing(batch: Floats) -> Floats:
        found: Floats = sums(batch) + np.float32(1e-6) * sums(batch).mean()
        return found

    assert not measure_batch_rule(mixing, images(6), 6, going).together


def test_every_batch_size_is_run_before_the_first_request() -> None:
    engine = SlowEngine()
    measure_batch_rule(engine, np.concatenate([image(value) for value in range(8)]), 8, going)
    assert set(engine.batches) == set(range(1, 9))


def test_a_largest_batch_of_one_needs_no_measurement() -> None:
    assert not measure_batch_rule(sums, images(3), 1, going).together


def test_one_by_one_gives_the_engine_one_image_at_a_time() -> None:
    engine = SlowEngine()
    assert one_by_one(engine)(np.concatenate([image(1), image(2)])).tolist() == [[2.0], [4.0]]
    assert engine.batches == [1, 1]


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 40))
def test_there_are_enough_probes_and_no_two_are_alike(golden: int, largest: int) -> None:
    probes = probe_images(images(golden), largest)
    assert len(probes) >= largest
    assert len({probe.tobytes() for probe in probes}) == len(probes)
    assert probes.dtype == np.float32


@settings(max_examples=25)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=16))
def test_the_integer_network_answers_alike_whatever_its_batch_mates(
    integer_session: Session, chosen: list[int]
) -> None:
    found = integer_session.run(images(24)[chosen])
    alone = np.concatenate([integer_session.run(images(24)[index : index + 1]) for index in chosen])
    assert found.tobytes() == alone.tobytes()


def test_the_rule_of_the_integer_network_is_to_run_batches(bundle: Path) -> None:
    with Session.load(bundle) as session:
        golden, _ = read_golden(bundle, session.info.manifest)
        assert measure_batch_rule(session.run, probe_images(golden, 16), 16, going).together


def test_a_server_that_is_stopped_tries_no_further_batch() -> None:
    tried: list[int] = []

    def run(batch: Floats) -> Floats:
        tried.append(len(batch))
        return sums(batch)

    with pytest.raises(ClosedError, match="being stopped"):
        measure_batch_rule(run, images(6), 6, lambda: len(tried) == 7)
    assert tried == [1] * 6 + [2]
