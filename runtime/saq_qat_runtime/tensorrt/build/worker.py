"""The building process: ``python -m saq_qat_runtime.tensorrt.build.worker FOLDER``.

It imports the standard library and one TensorRT library, whose crash ends this process and nothing else.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from saq_qat_runtime.tensorrt.build.builder import build
from saq_qat_runtime.tensorrt.build.exchange import LIBRARY_MODULES, BuildFailure, Refusal, Request, Workplace
from saq_qat_runtime.tensorrt.build.journal import Journal

__all__ = ["main"]


def main(folder: Path) -> None:
    """Do what the request in ``folder`` asks, and leave an answer or a refusal there."""
    place = Workplace(folder)
    request = Request.load(place.request)
    version = ""
    try:
        library = _import_library(request)
        version = library.__version__
        with Journal(place.journal) as journal:
            answer = build(library, request, journal, place.engine)
    except BuildFailure as failure:
        Refusal(failure.stage, version, failure.messages).save(place.refusal)
    else:
        answer.save(place.answer)


def _import_library(request: Request) -> Any:
    try:
        return importlib.import_module(LIBRARY_MODULES[request.flavour])
    except (ImportError, OSError) as error:
        raise BuildFailure("import", (str(error),)) from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
