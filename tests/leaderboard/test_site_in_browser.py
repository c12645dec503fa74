"""The site in a browser: nothing fails, nothing is fetched from elsewhere, links lead where they say.

pytest -m browser tests/leaderboard
COLLAPSEBENCH_SCREENSHOTS=folder pytest -m browser tests/leaderboard -k screenshot
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from collapsebench.paths import bundled

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

PATIENCE = 300  # seconds: others may be at work on the machine
PAGES = ("", "task", "gallery", "compare", "submission", "check", "rules")
# A page opened by its own address first asks for these below itself; Streamlit does that on every site.
PROBES = re.compile(r"/(?:task|gallery|compare|submission|check|rules)/_stcore/(?:health|host-config)$")
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site over the committed submissions, started from an empty directory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "streamlit", "run", str(bundled("leaderboard") / "app.py")]
    command += [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    environment = os.environ | {"COLLAPSEBENCH_SUBMISSIONS": str(bundled("submissions")), "COLLAPSEBENCH_TASKS": ""}
    log = folder / "log"
    with log.open("w") as output:
        site = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health", site, log)
            yield f"http://127.0.0.1:{port}/"
        finally:
            site.terminate()
            site.wait()


def _wait_for(url: str, site: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert site.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no site after {PATIENCE} s: {log.read_text()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Open pages, and fail at the end if any of them reported an error."""
    complaints: list[str] = []
    contexts = []

    def opened(path: str = "", width: int = 1440, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" and not _probe(m) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if _own(r.url, address) else complaints.append(f"foreign: {r.url}"))
        page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if _failed(r) else None)
        page.goto(address + path)
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _own(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:"))


def _probe(message: Any) -> bool:
    return PROBES.search(message.location.get("url", "")) is not None


def _failed(response: Any) -> bool:
    return response.status >= 400 and not PROBES.search(response.url)


def settle(page: Any) -> None:
    """Wait until the page's script has ended and its output is drawn."""
    page.wait_for_selector("h1")
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_timeout(1500)


@pytest.mark.parametrize("path", PAGES)
def test_page_loads_without_complaints_and_from_its_own_origin(path: str, visit: Open) -> None:
    page = visit(path)
    assert page.locator('[data-testid="stException"]').count() == 0
    assert page.title().endswith("· collapsebench")


@pytest.mark.parametrize("path", [*PAGES, "task?task=text-bytes-micro-fresh@1"])
def test_page_fits_a_phone(path: str, visit: Open) -> None:
    page = visit(path, width=390)
    wide = "m => m.scrollWidth > m.clientWidth"
    assert not page.locator('[data-testid="stMain"]').evaluate(wide)


def test_links_of_a_view_lead_to_it(visit: Open) -> None:
    page = visit("task?task=text-bytes-micro@1&metric=nll_per_byte&threshold=0.5&methods=ce&methods=focal")
    chosen = set(page.locator('[data-testid="stMultiSelect"]').inner_text().split())
    assert chosen == {"Methods", "ce", "focal"}
    page.get_by_role("button", name="Link to this view").click()
    link = page.locator('[data-testid="stPopoverBody"] code').inner_text()
    for part in ("task=text-bytes-micro@1", "metric=nll_per_byte", "threshold=0.5", "methods=ce", "methods=focal"):
        assert part in link
    again = visit("task?" + link.partition("?")[2])
    assert set(again.locator('[data-testid="stMultiSelect"]').inner_text().split()) == chosen
    assert "threshold=0.5" in again.url


def test_filter_goes_into_the_address_and_comes_back(visit: Open) -> None:
    page = visit()
    page.get_by_role("button", name="gmm", exact=True).click()
    page.get_by_role("heading", name="text-bytes-micro@1").wait_for(state="detached")
    settle(page)
    assert "modality=gmm" in page.url
    tasks = page.get_by_role("heading", name=re.compile("@"))
    assert tasks.all_inner_texts() == ["gmm-micro@1"]
    page.reload()
    settle(page)
    assert tasks.all_inner_texts() == ["gmm-micro@1"]


def test_entry_of_the_address_is_shown(visit: Open) -> None:
    (file,) = (bundled("submissions") / "gmm-micro@1").glob("tce-*.json")
    digest = file.stem.rpartition("-")[2]
    page = visit(f"submission?entry={digest}")
    assert page.locator("h3").first.inner_text() == "tce on gmm-micro@1"
    assert digest in page.url


def test_link_between_pages_keeps_the_task(visit: Open) -> None:
    page = visit("task?task=vae-mnist-micro@1")
    page.get_by_role("link", name="What the models made").click()
    page.get_by_role("heading", name="Gallery", level=1).wait_for()
    settle(page)
    assert "task=vae-mnist-micro" in page.url.replace("%40", "@")
    assert page.locator('[data-testid="stImage"] img, [data-testid="stImageContainer"] img').count() >= 3


def test_good_and_bad_file_are_told_apart(visit: Open, tmp_path: Path) -> None:
    page = visit("check")
    (good,) = (bundled("submissions") / "gmm-micro@1").glob("ce-*.json")
    page.locator('input[type="file"]').set_input_files(str(good))
    page.get_by_text("This file is already on the board.").wait_for()
    page.get_by_text("What it scores").wait_for()  # its task is retired: it stands nowhere
    bad = tmp_path / "bad.json"
    bad.write_bytes(good.read_bytes().replace(b'"cpu"', b'"abacus"'))
    page = visit("check")
    page.locator('input[type="file"]').set_input_files(str(bad))
    page.get_by_text("Refused").wait_for()
    settle(page)


def test_rows_can_be_downloaded(visit: Open) -> None:
    page = visit("?modality=gmm")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download these rows as CSV").click()
    rows = Path(download.value.path()).read_text("utf-8").splitlines()
    assert rows[0].startswith("task,tier,retired,track,rank_best,rank_worst,method,digest")
    assert {row.partition(",")[0] for row in rows[1:]} == {"gmm-micro@1"}


SHOTS = (
    ("board", "", 1440, "light"),
    ("board-phone", "", 390, "light"),
    ("board-dark", "", 1440, "dark"),
    ("task", "task?task=text-bytes-micro@1", 1440, "light"),
    ("gallery", "gallery?task=vae-mnist-micro@2&view=all+generations", 1440, "light"),
    ("compare", "compare?a=tce&b=ce", 1440, "light"),
    ("submission", "submission", 1440, "light"),
)
MOST = 2200  # pixels of height


@pytest.mark.skipif("COLLAPSEBENCH_SCREENSHOTS" not in os.environ, reason="COLLAPSEBENCH_SCREENSHOTS=folder saves them")
@pytest.mark.parametrize(("name", "path", "width", "scheme"), SHOTS)
def test_screenshot(name: str, path: str, width: int, scheme: str, visit: Open) -> None:
    page = visit(path, width, scheme)
    height = page.locator('[data-testid="stMain"]').evaluate("m => m.scrollHeight")
    page.set_viewport_size({"width": width, "height": min(height, MOST)})
    settle(page)
    folder = Path(os.environ["COLLAPSEBENCH_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(page.screenshot())) as picture:  # 256 colours are a third of the size
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            folder / f"leaderboard-{name}.png", optimize=True
        )
