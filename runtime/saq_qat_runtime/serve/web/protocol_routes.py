"""Routes of the Open Inference Protocol: health, metadata, configuration, inference."""

from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from saq_qat_runtime.serve.describe import model_config, model_metadata, server_metadata
from saq_qat_runtime.serve.model import ServedModel
from saq_qat_runtime.serve.protocol import (
    HEADER_LENGTH,
    InferRequest,
    encode_response,
    json_length,
    parse_request,
)
from saq_qat_runtime.serve.refusals import Refusal
from saq_qat_runtime.serve.web.serving import Serving

__all__ = ["ERRORS", "add_protocol_routes"]

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request breaks a rule; `error` says which, and how to mend it"},
    404: {"description": "No such model or version"},
    408: {"description": "The body came too slowly"},
    413: {"description": "The body is too large"},
    503: {"description": "Too much work waits, or nothing is loaded yet; see Retry-After"},
    504: {"description": "The deadline passed"},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_PARSED_AT_ONCE = 65536
"""JSON up to this size is parsed where it was read; more would hold up other requests. Bytes of tensors are
only looked at."""


def add_protocol_routes(app: FastAPI, serving: Serving) -> None:
    """Add them to `app`."""
    _add_health(app, serving)
    _add_metadata(app, serving)
    _add_inference(app, serving)


def _add_health(app: FastAPI, serving: Serving) -> None:
    catalogue = serving.catalogue

    @app.get("/v2/health/live", tags=["health"], summary="Whether the process should go on living")
    async def live() -> JSONResponse:
        return JSONResponse({"live": catalogue.healthy}, 200 if catalogue.healthy else 503)

    @app.get("/v2/health/ready", tags=["health"], summary="Whether requests should be sent here")
    async def ready() -> JSONResponse:
        ready = catalogue.ready and not serving.draining
        return JSONResponse({"live": catalogue.healthy, "ready": ready}, 200 if ready else 503)

    async def model_ready(name: str, version: str | None = None) -> JSONResponse:
        ready = catalogue.find(name, version).healthy and not serving.draining
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    _add_both(app, "GET", "ready", model_ready, "Whether this model answers", tags=["health"])


def _add_metadata(app: FastAPI, serving: Serving) -> None:
    catalogue = serving.catalogue

    @app.get("/v2", tags=["metadata"], summary="Name, version and extensions of the server")
    async def server() -> dict[str, Any]:
        return server_metadata()

    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        model = catalogue.find(name, version)
        return model_metadata(model, sorted(catalogue.models[name], key=int))

    async def config(name: str, version: str | None = None) -> dict[str, Any]:
        return model_config(catalogue.find(name, version), serving.settings)

    _add_both(app, "GET", "", metadata, "Inputs and outputs of a model", tags=["metadata"])
    _add_both(app, "GET", "config", config, "Configuration of a model", tags=["metadata"])

    @app.post("/v2/repository/index", tags=["metadata"], summary="Every model and version")
    async def index() -> list[dict[str, str]]:
        return [
            {"name": name, "version": version, "state": "READY" if model.healthy else "UNAVAILABLE"}
            for name, versions in catalogue.models.items()
            for version, model in versions.items()
        ]

    @app.post("/v2/repository/models/{name}/{action}", tags=["metadata"], include_in_schema=False)
    async def repository(name: str, action: str) -> None:
        rule = f"Models are not {action}ed over the network: whoever can do that can run code here"
        raise Refusal(403, f"{rule}. Change the folder and send the server SIGHUP.")


def _add_inference(app: FastAPI, serving: Serving) -> None:
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        with serving.admission.enter() as held, serving.catalogue.hold(name, version) as model:
            deadline = serving.deadline()
            body = await serving.body(request, held, deadline)
            header_length = request.headers.get(HEADER_LENGTH)
            parse = partial(_parse, body, header_length, model, serving.settings.max_batch)
            if json_length(header_length, len(body)) <= _PARSED_AT_ONCE:
                wanted = parse()
            else:
                wanted = await serving.in_thread(deadline, parse)
            if wanted.timeout is not None:
                deadline = min(deadline, serving.deadline(wanted.timeout))
            answer = await serving.answer(request, model.submit(wanted.images, deadline), deadline)
            return _response(wanted, answer.logits, model)

    _add_both(app, "POST", "infer", infer, "Logits of images", tags=["inference"],
              openapi_extra=_BODY)  # fmt: skip  # one value a line is a page


def _parse(body: bytes, header_length: str | None, model: ServedModel, max_batch: int) -> InferRequest:
    manifest = model.session.info.manifest
    source, output = manifest.inputs[0], manifest.outputs[0]
    return parse_request(body, header_length, source, output, len(manifest.labels), max_batch)


def _response(wanted: InferRequest, logits: Any, model: ServedModel) -> Response:
    manifest = model.session.info.manifest
    content, header_length = encode_response(
        wanted, logits, name=model.place.name, version=model.place.version,
        output=manifest.outputs[0], labels=manifest.labels,
    )  # fmt: skip  # one value a line is a page
    if header_length is None:
        return Response(content, media_type="application/json")
    headers = {HEADER_LENGTH: str(header_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")


def _add_both(app: FastAPI, method: str, last: str, endpoint: Any, summary: str, **options: Any) -> None:
    """A route for a model, and the same for one version of it."""
    for middle in ("", "/versions/{version}"):
        path = f"/v2/models/{{name}}{middle}/{last}".rstrip("/")
        app.add_api_route(path, endpoint, methods=[method], summary=summary, responses=ERRORS, **options)
