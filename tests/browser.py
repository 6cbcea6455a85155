"""A real browser for tests: headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
#: Seconds that a slow, shared machine may take to show something.
PATIENCE = 120


@dataclass
class Tab:
    """A page with all that it asked for and complained about."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, file: Path) -> None:
        """Open a report, and wait until its grid is there."""
        self.page.goto(file.as_uri())
        self.page.wait_for_selector(".card, #empty:not([hidden])")

    def pixels(self, selector: str) -> Any:
        """The pixels on the screen there, RGB ``(H, W, 3)``."""
        data = self.page.locator(selector).screenshot(animations="disabled")
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def names(self) -> list[str]:
        """The cards in the order in which they are read."""
        return list(self.page.locator(".card .name").all_text_contents())

    def open_viewer(self, index: int = 0) -> None:
        self.page.locator(".card .thumb").nth(index).click()
        self.page.wait_for_selector("dialog[open]")
        self.settle()

    def settle(self) -> None:
        """Wait until the viewer has its pictures, decoded and drawn."""
        self.page.wait_for_selector("#stage[aria-busy=false]")
        self.page.evaluate(
            "new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))"
        )

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for the effect of an event, which may reach the page a little later."""
        until = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < until, "has not come about"
            self.page.wait_for_timeout(20)

    def touch(self, *paths: list[tuple[float, float]]) -> None:
        """Move as many fingers along their paths, all of them of the same length."""
        client = self.page.context.new_cdp_session(self.page)
        for step, kind in enumerate(["touchStart"] + ["touchMove"] * (len(paths[0]) - 1)):
            points = [{"x": p[step][0], "y": p[step][1], "id": n} for n, p in enumerate(paths)]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def executable() -> str | None:
    """A Chromium of the system, or Playwright's own."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return str(own) if own.exists() else None


@contextmanager
def start() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not there: pip install -e .[test]"
    )
    path = executable()
    if path is None:
        pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with api.sync_playwright() as playwright:
        # Chromium refuses to run as root with its sandbox, which containers lack as well.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"] if root else []
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_tab(browser: Any, **settings: Any) -> Iterator[Tab]:
    """A page of its own. At the end it must not have complained or gone elsewhere."""
    context = browser.new_context(**{**DESKTOP, **settings})
    context.set_default_timeout(1000 * PATIENCE)
    tab = Tab(context.new_page())
    tab.page.on("console", lambda message: tab.messages.append(message.text))
    tab.page.on("pageerror", lambda error: tab.messages.append(str(error)))
    tab.page.on("dialog", lambda dialog: tab.messages.append(f"dialog {dialog.message}"))
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    try:
        yield tab
        assert tab.messages == []
        elsewhere = [url for url in tab.requests if not url.startswith(("file:", "data:"))]
        assert elsewhere == []
    finally:
        context.close()
