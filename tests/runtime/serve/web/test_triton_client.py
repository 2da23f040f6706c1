"""The package `tritonclient` works against the server, unchanged."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from saq_qat_runtime.session import Session
from tests.runtime.networks import LABELS, SIDE, images
from tests.runtime.serve.client import Address


@pytest.fixture
def client(server: Address) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.text) as client:
        yield client


def tensor(count: int = 3, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("image", [count, 3, SIDE, SIDE], "FP32")
    made.set_data_from_numpy(images(count), binary_data=binary)
    return made


def test_health_metadata_and_configuration(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("tiny")["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]}
    ]
    config = client.get_model_config("tiny", "1")
    assert config["max_batch_size"] == 8
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": [LABELS]}]
    assert client.get_model_repository_index() == [{"name": "tiny", "version": "1", "state": "READY"}]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("binary_input", [True, False])
def test_every_form_of_a_request_gives_the_bits_of_the_session(
    client: triton.InferenceServerClient,
    integer_session: Session,
    binary_input: bool,
    binary_output: bool,
    compression: str | None,
) -> None:
    result = client.infer(
        "tiny",
        [tensor(binary=binary_input)],
        outputs=[triton.InferRequestedOutput("logits", binary_data=binary_output)],
        request_id="request 7",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert result.as_numpy("logits").tobytes() == integer_session.run(images(3)).tobytes()
    assert result.as_numpy("logits").shape == (3, LABELS)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("request 7", "tiny", "1")


def test_all_outputs_are_given_if_none_is_named(
    client: triton.InferenceServerClient, integer_session: Session
) -> None:
    found = client.infer("tiny", [tensor(1)], model_version="1").as_numpy("logits")
    assert found.tobytes() == integer_session.run(images(1)).tobytes()


@pytest.mark.parametrize("binary", [True, False])
def test_labels_instead_of_logits(
    client: triton.InferenceServerClient, integer_session: Session, binary: bool
) -> None:
    wanted = triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)
    found = client.infer("tiny", [tensor()], outputs=[wanted]).as_numpy("logits")
    assert found.shape == (3, 2)
    for row, logits in zip(found, integer_session.run(images(3)), strict=True):
        best = row[0].decode() if binary else row[0]
        value, index, label = best.split(":")
        assert int(index) == logits.argmax()
        assert float(value) == pytest.approx(logits.max(), abs=1e-5)
        assert label == ("ant", "bee", "cat", "dog", "elk")[int(index)]


def test_many_requests_at_one_time_each_get_their_own_answer(
    server: Address, integer_session: Session
) -> None:
    given = images(24)
    with triton.InferenceServerClient(server.text, concurrency=8) as client:
        pending = []
        for index in range(len(given)):
            made = triton.InferInput("image", [1, 3, SIDE, SIDE], "FP32")
            made.set_data_from_numpy(given[index : index + 1])
            pending.append(client.async_infer("tiny", [made]))
        found = np.concatenate([each.get_result().as_numpy("logits") for each in pending])
    alone = np.concatenate([integer_session.run(given[index : index + 1]) for index in range(len(given))])
    assert found.tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model_name": "other"}, "404", "Model 'other' is unknown"),
        ({"model_version": "9"}, "404", "has no version '9'"),
        ({"sequence_id": 3}, "400", "sequence_id"),
        ({"priority": 1}, "400", "priority"),
        ({"outputs": [triton.InferRequestedOutput("other")]}, "400", "outputs must hold 'logits'"),
    ],
)
def test_errors_arrive_as_the_client_expects_them(
    client: triton.InferenceServerClient, change: dict[str, object], status: str, words: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.infer(**{"model_name": "tiny", "inputs": [tensor(1)], **change})
    assert refused.value.status() == status
    assert words in refused.value.message()


def test_models_cannot_be_loaded_over_the_network(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="run code here"):
        client.load_model("tiny", config="{}")
    with pytest.raises(InferenceServerException, match="run code here"):
        client.unload_model("tiny")
