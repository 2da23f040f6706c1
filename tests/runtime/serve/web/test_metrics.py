"""The metrics say what happened, in names that do not grow with what clients send."""

import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from saq_qat_runtime.serve.settings import ServeSettings, ShadowSettings
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, binary_request
from tests.runtime.serve.conftest import Start


def samples(server: Address) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = server.ask("GET", "/metrics").body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_batches_and_models_are_counted(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle)
    for count in (1, 3):
        assert server.infer(*binary_request(images(count))).status == 200
    server.infer(b"{")
    found = samples(server)
    route = ("route", "/v2/models/{name}/infer")
    tiny = (("model", "tiny"), ("version", "1"))
    assert found["saq_requests_total", (("code", "200"), route)] == 2
    assert found["saq_requests_total", (("code", "400"), route)] == 1
    assert found["saq_request_seconds_count", (route,)] == 3
    assert found["saq_batch_size_sum", tiny] == 4
    assert found["saq_compute_seconds_count", tiny] == found["saq_queue_seconds_count", tiny] == 2
    assert found["saq_queue_length", tiny] == 0
    assert found["saq_model_healthy", tiny] == 1
    (info,) = [labels for name, labels in found if name == "saq_model_info"]
    assert dict(info)["products"] == "integer (3/3 products on integer kernels)"
    assert found["saq_in_flight", ()] == 1  # the one that asks


def test_the_shadow_is_measured(start: Start, integer_bundle: Path) -> None:
    shadow = ShadowSettings(backend="onnxruntime", share=1.0)
    server = start(integer_bundle, ServeSettings(threads=1, drain_seconds=0.0, shadow=shadow))
    assert server.infer(*binary_request(images(3))).status == 200
    tiny = (("model", "tiny"), ("version", "1"))
    end = time.monotonic() + 20
    while not (found := samples(server)).get(("saq_shadow_images_total", tiny)):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert found["saq_shadow_images_total", tiny] == 3
    assert found["saq_shadow_flips_total", tiny] == 0
    assert found["saq_shadow_agreement", tiny] == 1
    assert found["saq_shadow_largest_difference", tiny] == 0
    assert found["saq_shadow_seconds_count", tiny] == found["saq_shadow_primary_seconds_count", tiny] == 1


def test_names_from_clients_make_no_new_lines(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle)
    server.ask("GET", "/v2/models/a")
    server.ask("GET", "/a")
    samples(server)  # /metrics has lines of its own from now on
    before = set(samples(server))
    for number in range(20):
        server.ask("GET", f"/v2/models/other{number}")
        server.ask("GET", f"/nothing/{number}")
    assert set(samples(server)) == before
