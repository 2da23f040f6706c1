"""Every error as the protocol has it: a JSON object with the member `error`, and nothing of our insides."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.serve.refusals import Refusal, refusal_of

__all__ = ["add_error_handlers"]


def add_error_handlers(app: FastAPI) -> None:
    """Turn whatever a route raises into an answer."""
    app.add_exception_handler(SessionError, _of_session)
    app.add_exception_handler(HTTPException, _of_address)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(ClientDisconnect, _of_client)
    app.add_exception_handler(Exception, _of_server)


async def _of_session(_request: Request, error: Exception) -> JSONResponse:
    refusal = refusal_of(error) if isinstance(error, SessionError) else Refusal(500, str(error))
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    return JSONResponse({"error": str(refusal)}, refusal.status, headers)


async def _of_address(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    reasons = {404: "There is nothing here", 405: f"{request.method[:20]} is not allowed here"}
    reason = reasons.get(status, error.detail if isinstance(error, HTTPException) else "")
    return JSONResponse({"error": f"{reason}. GET /docs lists every address."}, status, headers)


async def _of_parameters(_request: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    found = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in problems)
    return JSONResponse({"error": f"The address has a parameter that breaks a rule: {found}."}, 400)


async def _of_client(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"error": "The client left before its body was complete."}, 400)


async def _of_server(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"error": "The server failed; its log says why."}, 500)
