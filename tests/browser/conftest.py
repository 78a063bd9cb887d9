"""A real browser, real runs and a real TensorBoard; each is started once and closed at the end."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command, environment

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",  # of root, as in a container, Chromium asks for it
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
RUNS = (("optimizer=sgd",), ("seed=1",), ("seed=0",))  # of the FizzBuzz classifier


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is here."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium or Chrome."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[browser]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium or Chrome is on the PATH")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


class Watched:
    """A page, with what its console said and what it asked the network for."""

    def __init__(self, page) -> None:
        self.page, self.errors, self.warnings, self.requests = page, [], [], []
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda asked: self.requests.append(asked.url))

    def _note(self, kind: str, text: str) -> None:
        {"error": self.errors, "warning": self.warnings}.get(kind, []).append(text)


@pytest.fixture
def picture():
    """Return a taker of the README's pictures; it takes them where PICTURES names a folder."""

    def taken(page, name: str) -> None:
        if folder := os.environ.get("PICTURES"):
            page.wait_for_timeout(3000)  # the charts' lines are drawn without a sign of it
            page.screenshot(path=Path(folder, f"{name}.png"))

    return taken


@pytest.fixture
def opened(browser):
    """Return an opener of pages: (width, height, light or dark) -> a watched page, still blank."""
    contexts = []

    def blank(width: int = 1280, height: int = 900, scheme: str = "light") -> Watched:
        size = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme))
        return Watched(contexts[-1].new_page())

    yield blank
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Three runs of the FizzBuzz classifier, as a user makes them."""
    command = Command(tmp_path_factory.mktemp("browser") / "logs")
    for overrides in RUNS:
        command("train", "trainer.accelerator=cpu", *overrides)
    return command


@pytest.fixture(scope="session")
def tensorboard(trained: Command) -> Iterator[str]:
    """The address of a TensorBoard that shows the three runs, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--logdir", "logs/train", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words],
        cwd=trained.log_dir.parent,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _await(server, f"{address}/data/environment")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=60)


def _await(server: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(600):
        assert server.poll() is None, "TensorBoard has ended"
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("TensorBoard did not answer")
