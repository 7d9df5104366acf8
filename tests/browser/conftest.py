"""A real page of a real server, in both of ComfyUI's node renderers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from comfyui.server import Server

from . import sink_panel

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .comfy_page import ComfyPage

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium found on the PATH: no browser tests")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def page_of(browser: Browser, server: Server) -> Callable[[str], ComfyPage]:
    """The page of a renderer, opened once: a fresh one takes seconds. The other one rests."""
    from .comfy_page import ComfyPage  # not without playwright

    server.post("/settings/Comfy.TutorialCompleted", True)

    @cache
    def opened(renderer: str) -> ComfyPage:
        server.post("/settings/Comfy.VueNodes.Enabled", renderer == "vue")
        comfy = ComfyPage(browser.new_context(viewport={"width": 1400, "height": 1000}).new_page(), server)
        comfy.open()
        return comfy

    awake: list[ComfyPage] = []

    def of(renderer: str) -> ComfyPage:
        comfy = opened(renderer)
        if comfy not in awake:
            for other in awake:
                other.empty()
                other.rest()
            comfy.wake()
            awake[:] = [comfy]
        return comfy

    return of


@pytest.fixture(params=["canvas", "vue"])
def comfy(request: pytest.FixtureRequest, page_of: Callable[[str], ComfyPage]) -> Iterator[ComfyPage]:
    """An empty workflow; in the end no script of the pack may have complained."""
    comfy = page_of(request.param)
    comfy.empty()
    yield comfy
    complaints, comfy.complaints = comfy.complaints, []
    assert complaints == []


@pytest.fixture
def inspector(comfy: ComfyPage) -> int:
    """A Sink Inspector."""
    return comfy.add("VDiT_SinkInspector", y=-150)


@pytest.fixture
def told(comfy: ComfyPage, inspector: int) -> dict[str, Any]:
    """What a made-up run of the inspector has told the page."""
    told = sink_panel.make(comfy)
    sink_panel.ran(comfy, inspector, told)
    return told
