"""Routes for people: a picture in, labels out; and what is served."""

from time import perf_counter
from typing import Annotated, Any

import python_multipart  # noqa: F401  Starlette reads forms with it, and would miss it at the first form only
from fastapi import FastAPI, Query, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.batcher import Answer
from saq_qat_runtime.serve.catalogue import Catalogue
from saq_qat_runtime.serve.describe import model_facts
from saq_qat_runtime.serve.model import ServedModel
from saq_qat_runtime.serve.picture import decode_picture, picture_of_json
from saq_qat_runtime.serve.web.protocol_routes import ERRORS
from saq_qat_runtime.serve.web.serving import Serving

__all__ = ["add_picture_routes"]

_FIELD = "file"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [_FIELD],
                    "properties": {_FIELD: {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "byte"},
                        "top_k": {"type": "integer"},
                    },
                }
            },
        },
    }
}


def add_picture_routes(app: FastAPI, serving: Serving) -> None:
    """Add them to `app`."""
    catalogue, bounds = serving.catalogue, serving.settings.bounds

    @app.get("/models", tags=["pictures"], summary="What is served, for people")
    async def models() -> list[dict[str, Any]]:
        versions = (model for found in catalogue.models.values() for model in found.values())
        return [model_facts(model) for model in versions]

    @app.post(
        "/predict", tags=["pictures"], summary="The most probable labels of a picture", responses=ERRORS,
        openapi_extra=_BODY,
    )  # fmt: skip  # one value a line is a page
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="May be left out if one is served.")] = None,
        version: Annotated[str | None, Query(description="The highest if left out.")] = None,
        top_k: Annotated[int, Query(description="How many labels.")] = 5,
    ) -> dict[str, Any]:
        start = perf_counter()
        with (
            serving.admission.enter() as held,
            catalogue.hold(model or _only(catalogue), version) as served,
        ):
            deadline = serving.deadline()
            body = await serving.body(request, held, deadline)
            content, asked = await _picture(request, body)
            best = _checked(top_k if asked is None else asked)
            preprocessing = served.session.info.manifest.preprocessing
            images = await serving.in_thread(deadline, decode_picture, content, preprocessing, bounds.pixels)
            decoded = perf_counter()
            answer = await serving.answer(request, served.submit(images, deadline), deadline)
            return _prediction(served, answer, best, decoded - start, perf_counter() - start)


def _only(catalogue: Catalogue) -> str:
    names = sorted(catalogue.models)
    if len(names) > 1:
        raise InputError(
            f"Several models are served: {', '.join(names)}. Name one: /predict?model={names[0]}"
        )
    return names[0] if names else ""


def _checked(top_k: int) -> int:
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}.")
    return top_k


async def _picture(request: Request, body: bytes) -> tuple[bytes, int | None]:
    """The bytes of the picture, by the body's type, and how many labels its JSON asks for."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return picture_of_json(body)
    if kind == "multipart/form-data":
        return await _file_of_form(request, body), None
    return body, None


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form = await Request(request.scope, receive).form(max_files=1, max_fields=8)
    except (HTTPException, ValueError, KeyError) as error:
        reason = getattr(error, "detail", error)
        raise InputError(
            f"The form cannot be read: {str(reason).rstrip('.')}. Send one file in the field {_FIELD!r}."
        ) from error
    upload = form.get(_FIELD)
    if not isinstance(upload, UploadFile):
        raise InputError(f"The form must hold one file in the field {_FIELD!r}, got {sorted(form)[:8]}.")
    content = await upload.read()
    await form.close()
    return content


def _prediction(
    model: ServedModel, answer: Answer, best: int, decode_seconds: float, seconds: float
) -> dict[str, Any]:
    ranked = model.session.rank(answer.logits[0], best)
    return {
        "model": model.place.name,
        "version": model.place.version,
        "predictions": [
            {"label": each.label, "probability": each.probability, "index": each.index} for each in ranked
        ],
        "milliseconds": {
            "total": 1e3 * seconds,
            "decode": 1e3 * decode_seconds,
            "queue": 1e3 * answer.queue_seconds,
            "compute": 1e3 * answer.compute_seconds,
        },
    }
