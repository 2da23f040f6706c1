"""The application: routes, errors and what stands around them."""

from fastapi import FastAPI

from saq_qat_runtime import __version__
from saq_qat_runtime.serve.web.errors import add_error_handlers
from saq_qat_runtime.serve.web.page_routes import add_page_routes
from saq_qat_runtime.serve.web.picture_routes import add_picture_routes
from saq_qat_runtime.serve.web.protocol_routes import add_protocol_routes
from saq_qat_runtime.serve.web.serving import Serving
from saq_qat_runtime.serve.web.watch import Watch

__all__ = ["create_app"]


def create_app(serving: Serving) -> FastAPI:
    """The ASGI application of one server. It does not load the models: `serving.reload` does."""
    app = FastAPI(
        title="saq-qat-runtime",
        version=__version__,
        description="Integer networks over the Open Inference Protocol, version 2.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Watch, serving=serving)
    add_error_handlers(app)
    add_protocol_routes(app, serving)
    add_picture_routes(app, serving)
    add_page_routes(app, serving)
    return app
