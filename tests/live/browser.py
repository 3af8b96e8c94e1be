"""Headless Chromium for tests, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import connect

__all__ = ["Browser", "chromium"]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions",
    "--proxy-server=direct://", "--remote-debugging-port=0", "--window-size=1280,1100",
)  # fmt: skip


def chromium() -> str | None:
    """The path of a Chromium or Chrome on this machine, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser of its own, with a fresh profile.

    Args:
        deadline: seconds within which each step must be done.
        flags: further ones for Chromium.
    """

    def __init__(self, deadline: float = 60.0, flags: Sequence[str] = ()) -> None:
        path = chromium()
        assert path is not None, "no Chromium on this machine"
        self._deadline = deadline
        self._profile = tempfile.mkdtemp(prefix="kongtwist-chromium-")
        self._process = subprocess.Popen(
            [path, *FLAGS, *flags, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._last_id = 0
        self.complaints: list[str] = []  #: uncaught exceptions and console errors of the page
        self.printed: list[str] = []  #: what the page has printed to the console, a line each
        try:
            self._socket = connect(self._page_address(), max_size=None, proxy=None)
        except BaseException:
            self.close()
            raise
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def _page_address(self) -> str:
        """The DevTools address of a new page, once the browser is up."""
        told = os.path.join(self._profile, "DevToolsActivePort")
        until = time.monotonic() + self._deadline
        while time.monotonic() < until:
            if os.path.exists(told):
                with open(told, encoding="ascii") as file:
                    lines = file.read().split()
                if len(lines) == 2:
                    new = Request(f"http://127.0.0.1:{lines[0]}/json/new?about:blank", method="PUT")
                    with urlopen(new, timeout=self._deadline) as answer:
                        return str(json.load(answer)["webSocketDebuggerUrl"])
            if self._process.poll() is not None:
                raise AssertionError(f"Chromium ended with {self._process.returncode}")
            time.sleep(0.05)
        raise AssertionError("Chromium did not start in time")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command and wait for its result."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(self._deadline))
            if message.get("id") == self._last_id:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']['message']}")
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.printed.append(
                " ".join(str(each.get("value", each.get("description"))) for each in parameters["args"])
            )
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go to a page; what it loads may still be under way afterwards."""
        result = self.command("Page.navigate", url=url)
        assert "errorText" not in result, result

    def run(self, script: str) -> Any:
        """Run a JavaScript expression in the page, promises awaited; returns its value."""
        outcome = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in outcome:
            raise AssertionError(outcome["exceptionDetails"].get("exception", {}).get("description", script))
        return outcome["result"].get("value")

    def type(self, text: str) -> None:
        """Type something into the console, as one does by hand: what is assigned becomes a variable of the page."""
        outcome = self.command("Runtime.evaluate", expression=text, replMode=True)
        if "exceptionDetails" in outcome:
            raise AssertionError(outcome["exceptionDetails"].get("exception", {}).get("description", text))

    def wait(self, condition: str) -> Any:
        """Wait until a JavaScript expression is true in the page; returns its value."""
        until = time.monotonic() + self._deadline
        while time.monotonic() < until:
            value = self.run(condition)
            if value:
                return value
            time.sleep(0.05)
        shown = self.run("document.body.innerText.slice(0, 2000)")
        raise AssertionError(f"not so in time: {condition}\n{shown}\n{self.complaints}")

    def screenshot(self, path: str, dark: bool = False, width: int = 1280, height: int = 1100) -> None:
        """Write what the page looks like to a PNG file."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[feature])
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        data = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self) -> None:
        """End the browser and all its processes, and remove its profile."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)
