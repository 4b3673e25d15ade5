"""A headless Chromium, led through its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/.

For tests of pages; needs a Chromium or Chrome on the PATH (Debian: apt-get install chromium) and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_S = 60.0


def program() -> str:
    """The path of the browser. Raises `FileNotFoundError` saying how to get one."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(f"these tests need a browser: one of {', '.join(NAMES)} on the PATH; see CONTRIBUTING.md")


class Page:
    """One page of the browser. Every method waits for the page and raises `TimeoutError` if it does not get there."""

    def __init__(self, port: int, width: int, height: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._loop.run_until_complete(self._connect(port))
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            targets = await answer.json()
        address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        self._socket = await self._session.ws_connect(address, max_msg_size=0)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        return self._loop.run_until_complete(self._call(method, params))

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive(timeout=60)).data)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON has it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", str(answer)))
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 90.0) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):  # the page is being replaced
                if value := self.evaluate(expression):
                    return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true: {expression}\nThe page says:\n{self.text()}")
            time.sleep(0.2)

    def text(self) -> str:
        """What the page says."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def click(self, element: str) -> None:
        """Click into the middle of an element, given as a JavaScript expression, once it is there."""
        x, y = self.wait(
            f"(e => {{ if (!e) return null; e.scrollIntoView({{block: 'center'}});"
            f" const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] }})({element})"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Write what can be seen to a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        async def close() -> None:
            await self._socket.close()
            await self._session.close()

        self._loop.run_until_complete(close())
        self._loop.close()


@contextlib.contextmanager
def page(profile: Path, *, width: int = 1440, height: int = 900) -> Iterator[Page]:
    """A page of a browser of its own, which ends with it; `profile` is an empty folder for its files."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]
    with (profile / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [program(), *options, f"--user-data-dir={profile}", "about:blank"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        told = profile / "DevToolsActivePort"
        deadline = time.monotonic() + _START_S
        while not (told.exists() and told.read_text().count("\n")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"the browser did not start: {(profile / 'browser.log').read_text()[-2000:]}")
            time.sleep(0.1)
        shown = Page(int(told.read_text().splitlines()[0]), width, height)
        try:
            yield shown
        finally:
            shown.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
