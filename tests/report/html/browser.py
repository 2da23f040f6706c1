"""A page in headless Chromium, driven through the pipe of its DevTools protocol; nothing to install."""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["CHROMIUM", "Browser", "Look", "chromium"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# What sticks out of the page, unless it lies in a box that scrolls or was hidden on purpose.
_OVERFLOWING = """
[...document.querySelectorAll("body *")].filter(e => {
  const box = e.getBoundingClientRect();
  if (!box.width || (box.right <= innerWidth + 0.5 && box.left >= -0.5)) return false;
  for (let p = e; p; p = p.parentElement) {
    const style = getComputedStyle(p);
    if (style.clipPath !== "none" || p instanceof SVGSVGElement) return false;
    if (p !== e && ["auto", "scroll", "hidden"].includes(style.overflowX)) return false;
  }
  return true;
}).map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`)
"""
# Text that is cut off: in a picture beyond its edge, or in a box that neither wraps nor scrolls.
_CUT = """
[...document.querySelectorAll("svg text")].filter(e => {
  const own = e.getBoundingClientRect(), all = e.ownerSVGElement.getBoundingClientRect();
  return own.width && (own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1);
}).map(e => `${e.textContent.trim().slice(0, 60)} in ${e.ownerSVGElement.getAttribute("aria-label")}`)
"""


_SCROLLING = """
[...document.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.getAttribute("aria-label"))
"""


@dataclass(frozen=True)
class Look:
    """How a page looks at one width and theme.

    Attributes:
        width: pixels, of the widest that is laid out. overflowing, cut: what does not fit, in words.
        scrolling: tables that are wider than their box.
        errors: of scripts, of the console, of the content security policy. requests: URLs beyond the file.
        ground: colour behind the page.
    """

    width: int
    overflowing: list[str]
    cut: list[str]
    scrolling: list[str]
    errors: list[str]
    requests: list[str]
    ground: str


class Browser:
    """A page target of a browser that was started by ``chromium``."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer, self._number = b"", 0
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._read, 1 << 16)
            assert more, "the browser has gone"
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\0", 1)
        value: dict[str, Any] = json.loads(line)
        return value

    def value(self, expression: str) -> Any:
        """What an expression gives in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def look(self, page: Path, width: int, theme: Literal["light", "dark"]) -> Look:
        """Open a file at this width in this theme."""
        self._events.clear()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())
        self.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        return Look(
            width=self.value("document.documentElement.scrollWidth"),
            overflowing=self.value(_OVERFLOWING),
            cut=self.value(_CUT),
            scrolling=self.value(_SCROLLING),
            errors=[json.dumps(each["params"]) for each in self._events if _is_error(each)],
            requests=[
                url for each in self._events if (url := _request(each)) not in ("", page.resolve().as_uri())
            ],
            ground=self.value("getComputedStyle(document.body).backgroundColor"),
        )

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        return base64.b64decode(picture["data"])


def _is_error(event: dict[str, Any]) -> bool:
    if event["method"] == "Runtime.exceptionThrown":
        return True
    if event["method"] == "Log.entryAdded":
        return bool(event["params"]["entry"]["level"] in ("error", "warning"))
    return bool(
        event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "assert")
    )


def _request(event: dict[str, Any]) -> str:
    """The URL that was asked for, or nothing; data URIs ask nobody."""
    if event["method"] != "Network.requestWillBeSent":
        return ""
    url = str(event["params"]["request"]["url"])
    return "" if url.startswith("data:") else url


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in ``profile``; it ends with the context."""
    (theirs_read, write), (read, theirs_write) = os.pipe(), os.pipe()
    # Bash puts them at 3 and 4, where the browser expects them, so they must not be there yet.
    given = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (theirs_read, theirs_write)]
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-pipe",
    ]
    command = [str(CHROMIUM), *options, "--hide-scrollbars", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{given[0]} 4>&{given[1]}', "bash", *command],
        pass_fds=given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for descriptor in (theirs_read, theirs_write, *given):
        os.close(descriptor)
    try:
        yield Browser(write, read)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(write)
        os.close(read)
