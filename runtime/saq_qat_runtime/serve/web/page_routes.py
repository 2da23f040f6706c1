"""Pages that load nothing from elsewhere: to try the models with, and of all addresses; and the metrics."""

import base64
import hashlib
import re
from html import escape
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from saq_qat_runtime.serve.web.metrics import CONTENT_TYPE
from saq_qat_runtime.serve.web.serving import Serving

__all__ = ["add_page_routes"]

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def add_page_routes(app: FastAPI, serving: Serving) -> None:
    """Add them to `app`; last, since one of them lists the others."""
    page = _read("page.html")
    headers = _policy(page)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page, headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        text = _read("docs.html").replace("{addresses}", _addresses(app.openapi()))
        return HTMLResponse(text, headers=_policy(text))

    @app.get("/metrics", tags=["metrics"], summary="Numbers for Prometheus")
    async def metrics() -> Response:
        return Response(serving.metrics.text(serving.catalogue), media_type=CONTENT_TYPE)


def _read(name: str) -> str:
    return files("saq_qat_runtime.serve.web").joinpath(name).read_text(encoding="utf-8")


def _policy(page: str) -> dict[str, str]:
    """The browser runs and loads what stands in the page, by its hash, talks to this server, and no more."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    rules = [f"{kind}-src {' '.join(found) or chr(39) + 'none' + chr(39)}" for kind, found in hashes.items()]
    rules += ["img-src blob: data:", "connect-src 'self'"]
    rest = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return {"Content-Security-Policy": f"{rest}; {'; '.join(rules)}", "Cache-Control": "no-cache"}


def _addresses(openapi: dict[str, Any]) -> str:
    """Every address with its method, what it is for, its parameters and its answers."""
    rows: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            rows.setdefault(operation["tags"][0], []).append(_address(method, path, operation))
    return "".join(f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in rows.items())


def _address(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(each['name'])}</code> {escape(each.get('description', ''))}</li>"
        for each in operation.get("parameters", [])
        if each["in"] == "query"
    )
    bodies = ", ".join(operation.get("requestBody", {}).get("content", {}))
    answers = "".join(
        f"<li><code>{escape(status)}</code> {escape(answer['description'])}</li>"
        for status, answer in operation["responses"].items()
        if status != "422"
    )
    body = f"<p>Body: {escape(bodies)}</p>" if bodies else ""
    asked = f"<p>Query:</p><ul>{parameters}</ul>" if parameters else ""
    head = f"<code><b>{escape(method.upper())}</b> {escape(path)}</code> {escape(operation['summary'])}"
    return f"<details><summary>{head}</summary>{body}{asked}<p>Answers:</p><ul>{answers}</ul></details>"
