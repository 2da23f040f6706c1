"""The process: listen, load, answer; stop without losing a request."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from saq_qat_runtime.errors import ClosedError, InputError
from saq_qat_runtime.serve.settings import ServeSettings
from saq_qat_runtime.serve.web.app import create_app
from saq_qat_runtime.serve.web.connection import connection_class
from saq_qat_runtime.serve.web.serving import Serving

__all__ = ["BundleServer", "listen", "serve"]

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 60
_LAST_REQUEST_SECONDS = 1.5
"""For which a connection that was open when listening ended may still bring a request."""

_log = logging.getLogger("saq_qat_runtime.serve")


def serve(root: Path, settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve the models under `root` until SIGTERM or SIGINT; SIGHUP looks at the folder again.

    say: is told, line by line, what a person at the terminal should know.
    Raises SessionError if a model cannot be loaded at the start, InputError if the address is taken.
    """
    serving = Serving(root, settings)
    with listen(settings.host, settings.port) as listening:
        server = BundleServer(serving, say)
        try:
            server.run(sockets=[listening])
        finally:
            serving.close()
    if server.failure is not None:
        raise server.failure


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises InputError where there can be none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        rule = f"Cannot listen on {host} port {port}: {error.strerror or error}"
        raise InputError(f"{rule}. Choose another: --host, --port.") from error


class BundleServer(uvicorn.Server):
    """uvicorn's server, which loads models once it listens and stops in steps.

    failure: why the models could not be loaded; the server stops then.
    """

    def __init__(self, serving: Serving, say: Callable[[str], None]) -> None:
        bounds = serving.settings.bounds
        super().__init__(
            uvicorn.Config(
                create_app(serving),
                http=connection_class(bounds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(serving.settings.shutdown_seconds)),
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self.failure: Exception | None = None
        self._serving = serving
        self._say = say
        self._loading: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully, at once on a second SIGINT; to stop is no error, so nothing is raised."""
        self._serving.draining = True
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then load in the background: until that is done, requests get 503."""
        await super().startup(sockets)
        self._loading = asyncio.create_task(self._load(sockets or []))
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_later)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            _log.info("SIGHUP does not reload here: %s", error)  # in a thread, or on another system

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Not ready; then no longer listening; then idle connections closed; then the last requests answered.

        Every answer closes its connection from here on, so that clients go elsewhere by themselves.
        """
        self._serving.draining = True
        if self.failure is None and not self.force_exit:
            await asyncio.sleep(self._serving.settings.drain_seconds)
            await self._stop_listening(sockets or [])
            await self._wait_for_last_requests()
        await super().shutdown(sockets)

    async def _load(self, sockets: list[socket.socket]) -> None:
        largest = self._serving.settings.max_batch
        self._say(f"loading; every batch of up to {largest} images is tried before the first answer")
        try:
            await asyncio.to_thread(self._serving.reload)
        except ClosedError:
            self.should_exit = True  # stopped before it was ready
            return
        except Exception as error:  # raised again by `serve`, once the loop has ended
            self.failure = error
            self.should_exit = True
            return
        for versions in self._serving.catalogue.models.values():
            for model in versions.values():
                info = model.session.info
                self._say(
                    f"{model.place.name}/{model.place.version}: {info.backend} {info.backend_version}, "
                    f"{model.products}; {model.rule.label}"
                )
        shadow = self._serving.settings.shadow
        if shadow is not None:
            self._say(f"shadow: {shadow.bundle or shadow.backend} answers {shadow.share:.0%} of them too")
        for listening in sockets:
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self._say(f"ready on http://{shown}:{port}")

    def _reload_later(self) -> None:
        if self._loading is not None and self._loading.done() and not self.should_exit:
            self._loading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            changes = await asyncio.to_thread(self._serving.reload)
        except Exception as error:  # whatever is wrong with the new models, the old ones go on
            self._say(f"reload failed, everything is served as before: {error}")
            return
        loaded, closed = ", ".join(changes.loaded) or "nothing", ", ".join(changes.closed) or "nothing"
        self._say(f"reloaded: loaded {loaded}; closed {closed}; {len(changes.kept)} as before")

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets, but take the connections first that clients hold to be open."""
        loop = asyncio.get_running_loop()
        kept = [listening.dup() for listening in sockets]
        for server in self.servers:
            server.close()
        for listening in kept:
            listening.setblocking(False)
            waiting = _accepted(listening)
            listening.close()
            for connection in waiting:
                await loop.connect_accepted_socket(self._connection, connection)

    def _connection(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn has it
            config=self.config, server_state=self.server_state, app_state={}
        )
        return made

    async def _wait_for_last_requests(self) -> None:
        """Until every connection is closed by its last answer, or idle ones had time for one more request."""
        end = asyncio.get_running_loop().time() + _LAST_REQUEST_SECONDS
        while self.server_state.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)


def _accepted(listening: socket.socket) -> list[socket.socket]:
    accepted: list[socket.socket] = []
    while True:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError):
            return accepted
        except OSError:
            return accepted
        connection.setblocking(False)
        accepted.append(connection)
