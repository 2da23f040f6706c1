"""The command `serve`: its arguments, and from them a server that runs until it is stopped."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from saq_qat_runtime.errors import BackendUnavailable, InputError
from saq_qat_runtime.report.text import printable
from saq_qat_runtime.serve.settings import Bounds, ServeSettings, ShadowSettings

__all__ = ["add_arguments", "run", "serve_bundles", "settings_of"]

_MEBIBYTE = 1024 * 1024
_DEFAULTS, _BOUNDS = ServeSettings(), Bounds()
_SHARE = 0.1
_EXTRA = ("fastapi", "h11", "prometheus_client", "python_multipart", "starlette", "uvicorn")


def add_arguments(parser: argparse.ArgumentParser, *, run_optional: bool = False) -> None:
    """Declare the arguments of `serve`; with `run_optional`, a run will do too, and may be left out."""
    models = "a bundle; or a folder of models, models/<model>/<version>/ each a bundle"
    if run_optional:
        help_text = f"a run, the newest if left out; {models}"
        parser.add_argument("bundle", type=Path, nargs="?", metavar="RUN|BUNDLE", help=help_text)
    else:
        parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=models)
    parser.add_argument("--host", default=_DEFAULTS.host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=_DEFAULTS.port, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--backend", default=_DEFAULTS.backend, help="engine (%(default)s: the best that can)"
    )
    parser.add_argument("--threads", type=int, help="of one run on the CPU (the engine's choice)")
    parser.add_argument(
        "--allow-failed-gate", action="store_true", help="serve bundles whose proof failed, too"
    )
    _add_batches(parser.add_argument_group("batches"))
    _add_bounds(parser.add_argument_group("bounds"))
    _add_shadow(parser.add_argument_group("shadow mode"))


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, which is 0; raises SessionError for what cannot be served."""
    return serve_bundles(arguments.bundle, settings_of(arguments))


def serve_bundles(root: Path, settings: ServeSettings) -> int:
    """Serve the models under `root`; see `run`. Raises BackendUnavailable without the extra `serve`."""
    try:
        from saq_qat_runtime.serve.web.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        fix = "pip install 'saq-qat-runtime[serve]'"
        raise BackendUnavailable(f"Serving needs {error.name}, which is not installed: {fix}") from error
    serve(root, settings, _say)
    return 0


def settings_of(arguments: argparse.Namespace) -> ServeSettings:
    """The settings that the arguments ask for; raises InputError for a number that makes no sense."""
    bounds = Bounds(
        body_bytes=round(arguments.max_body_mib * _MEBIBYTE),
        buffered_bytes=round(arguments.max_buffered_mib * _MEBIBYTE),
        pixels=arguments.max_pixels,
        requests=arguments.queue,
        connections=arguments.connections,
        deadline=arguments.deadline,
        header_seconds=arguments.header_seconds,
        body_seconds=arguments.body_seconds,
        send_seconds=arguments.send_seconds,
    )
    return ServeSettings(
        host=arguments.host,
        port=arguments.port,
        backend=arguments.backend,
        threads=arguments.threads,
        max_batch=arguments.max_batch,
        batch_delay=arguments.batch_delay_ms / 1e3,
        drain_seconds=arguments.drain_seconds,
        shutdown_seconds=arguments.shutdown_seconds,
        allow_failed_gate=arguments.allow_failed_gate,
        bounds=bounds,
        shadow=_shadow_of(arguments),
    )


def _shadow_of(arguments: argparse.Namespace) -> ShadowSettings | None:
    if arguments.shadow is None and arguments.shadow_backend is None:
        if arguments.shadow_keep is not None or arguments.shadow_share is not None:
            raise InputError(
                "--shadow-share and --shadow-keep are about a shadow, and there is none. Name it: --shadow "
                "BUNDLE or --shadow-backend NAME."
            )
        return None
    return ShadowSettings(
        bundle=arguments.shadow,
        backend=arguments.shadow_backend,
        share=_SHARE if arguments.shadow_share is None else arguments.shadow_share,
        keep_folder=arguments.shadow_keep,
        keep=arguments.shadow_keep_limit,
    )


def _add_batches(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-batch", type=int, default=_DEFAULTS.max_batch,
        help="images in one run of the engine, and in one request (%(default)s)",
    )  # fmt: skip  # one value a line is a page
    group.add_argument(
        "--batch-delay-ms", type=float, default=1e3 * _DEFAULTS.batch_delay,
        help="for which an image waits for others (%(default)s: only while the engine is busy)",
    )  # fmt: skip  # one value a line is a page
    group.add_argument(
        "--queue", type=int, default=_BOUNDS.requests,
        help="requests being answered, once their bodies are there; more get 503 (%(default)s)",
    )  # fmt: skip  # one value a line is a page
    group.add_argument(
        "--deadline", type=float, default=_BOUNDS.deadline, help="seconds for an answer (%(default)s)"
    )
    group.add_argument(
        "--drain-seconds", type=float, default=_DEFAULTS.drain_seconds,
        help="after SIGTERM, for which it still listens but is not ready (%(default)s)",
    )  # fmt: skip  # one value a line is a page
    group.add_argument(
        "--shutdown-seconds", type=float, default=_DEFAULTS.shutdown_seconds,
        help="for the requests in flight, after that (%(default)s)",
    )  # fmt: skip  # one value a line is a page


def _add_bounds(group: argparse._ArgumentGroup) -> None:
    for name, default, meaning in (
        ("--max-body-mib", _BOUNDS.body_bytes / _MEBIBYTE, "of a request"),
        ("--max-buffered-mib", _BOUNDS.buffered_bytes / _MEBIBYTE, "of all requests under way"),
        ("--header-seconds", _BOUNDS.header_seconds, "for the head of a request to arrive"),
        ("--body-seconds", _BOUNDS.body_seconds, "for its body to arrive"),
        ("--send-seconds", _BOUNDS.send_seconds, "for an answer to be taken"),
    ):
        group.add_argument(name, type=float, default=default, help=f"{meaning} (%(default)s)")
    for name, count, meaning in (
        ("--max-pixels", _BOUNDS.pixels, "of a picture as it is sent"),
        ("--connections", _BOUNDS.connections, "open at one time"),
    ):
        group.add_argument(name, type=int, default=count, help=f"{meaning} (%(default)s)")


def _add_shadow(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--shadow", type=Path, metavar="BUNDLE", help="a second bundle to run beside")
    group.add_argument("--shadow-backend", metavar="NAME", help="a second engine to run beside")
    group.add_argument("--shadow-share", type=float, help=f"of the requests, above 0 to 1 ({_SHARE})")
    group.add_argument(
        "--shadow-keep", type=Path, metavar="FOLDER", help="keep inputs that are answered otherwise there"
    )
    group.add_argument("--shadow-keep-limit", type=int, default=100, help="files at most (%(default)s)")


def _say(line: str) -> None:
    with suppress(OSError):  # a log on a full disk, or a pipe that nobody reads: answers go on without
        print(printable(line), file=sys.stderr, flush=True)
