"""For all tests: one thread, so that results and times do not hang on the machine; no model hub, as none needs it.

And a real browser, for what is to be looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # for this process, if torch is not loaded yet, and for those that tests start
os.environ.pop("REFEREE_LOAD_PLUGINS", None)  # a person's allow list is no part of the tests

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


class Browser:
    """A headless Chromium, talked to through its debugging pipe: file descriptors 3 and 4, JSON between null bytes."""

    def __init__(self, profile: Path) -> None:
        here, self.to = os.pipe()
        self.back, there = os.pipe()
        shell = f'exec "{CHROMIUM}" "$@" 3<&{here} 4>&{there}'
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *flags], pass_fds=(here, there), stderr=subprocess.DEVNULL
        )
        os.close(here), os.close(there)
        self.buffer, self.count, self.events = b"", 0, list[dict[str, Any]]()
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session: str | None = None
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    session: str | None = None

    def __call__(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.count:
                assert "error" not in found, found
                result: Mapping[str, Any] = found["result"]
                return result
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            piece = os.read(self.back, 1 << 16)
            assert piece, "the browser is gone"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def show(self, page: Path | str, width: int) -> None:
        """Load a page, a file or an address, at a width and wait for it."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=1600, deviceScaleFactor=1, mobile=width < 600)
        self.events.clear()
        self("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression: str) -> Any:
        """What a script finds on the page; the debugger is not bound by the page's policy."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def picture(self) -> Image.Image:
        """What the page looks like."""
        from base64 import b64decode

        return Image.open(BytesIO(b64decode(self("Page.captureScreenshot", format="png")["data"]))).convert("RGB")

    def asked_for(self) -> list[str]:
        """Every address that the page asked for since `show`."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """Errors of the console, and whatever a script threw."""
        bad = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event) for event in self.events if event.get("method") in bad]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium is installed: the layout is not looked at (Debian: apt install chromium)")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.process.terminate()
    opened.process.wait()
