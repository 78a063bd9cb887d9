"""A report in a real browser: nothing fetched, nothing hidden, readable by all and on a phone."""

from pathlib import Path

import pytest

from tests.browser.conftest import Watched
from tests.conftest import Command

pytest.importorskip("src.kindling.results", reason="src/kindling/results was deleted")
from src.kindling.results import runs
from src.kindling.results.page import page
from tests.kindling.results.test_report import ATTACK, planted, png
from tests.kindling.results.test_runs import plant

PHONE = (390, 844)


@pytest.fixture(scope="module", params=["one run", "several runs", "a stranger's run"])
def page_path(
    request: pytest.FixtureRequest, trained: Command, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A report as the command writes it."""
    folder: Path = tmp_path_factory.mktemp("report")
    if request.param == "one run":
        trained("report", f"output={folder}/a.html")
    elif request.param == "several runs":
        trained("report", f"{trained.log_dir}/train", f"output={folder}/a.html")
    else:
        path = planted(folder / "run")
        (path / "figures" / "<img onerror=alert(1)>.png").write_bytes(png(ATTACK.encode("utf-8")))
        (path / "metrics.csv").write_text("step,train/<script>alert(1)</script>\n1,2\n2,3\n")
        hostile = plant(folder / "hostile", seed=ATTACK, status=ATTACK, **{"model.name": ATTACK})
        found = [runs.read(path), runs.read(hostile)]
        (folder / "a.html").write_text(page(found), encoding="utf-8")
    return folder / "a.html"


@pytest.fixture(params=[(1280, 900, "light"), (1280, 900, "dark"), (*PHONE, "light")], ids=str)
def shown(request: pytest.FixtureRequest, opened, page_path: Path) -> Watched:
    """The report on a screen or a phone."""
    watched: Watched = opened(*request.param)
    watched.page.on("dialog", lambda dialog: watched.errors.append(dialog.message))
    watched.page.goto(page_path.as_uri(), wait_until="load")
    return watched


def test_it_fetches_nothing_and_the_console_stays_empty(shown: Watched, page_path: Path) -> None:
    others = [url for url in shown.requests if not url.startswith("data:")]
    assert others == [page_path.as_uri()]
    assert shown.errors + shown.warnings == []


def test_every_picture_is_seen_and_said(shown: Watched) -> None:
    pictures = shown.page.locator("img").all()
    assert len(pictures) >= 3
    for picture in pictures:
        assert picture.evaluate("node => node.complete && node.naturalWidth > 0")
        assert picture.bounding_box()["width"] > 300 or shown.page.viewport_size["width"] > 1000
        assert len(picture.get_attribute("alt")) > 3


def test_the_page_does_not_scroll_sideways(shown: Watched) -> None:
    assert shown.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_axe_finds_no_fault(shown: Watched) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(shown.page)
    assert len(found.response["passes"]) > 10
    assert found.violations_count == 0, found.generate_report()


def test_what_it_shows(opened, trained: Command, tmp_path: Path, picture) -> None:
    trained("report", f"output={tmp_path}/a.html")
    watched = opened(900, 1000)
    watched.page.goto((tmp_path / "a.html").as_uri())
    headings = watched.page.get_by_role("heading").all_inner_texts()
    assert headings[1:] == [
        *("Final metrics", "Curves", "Figures", "Commands", "Facts", "Configuration")
    ]
    assert watched.page.get_by_alt_text("The game: ").is_visible()
    assert watched.page.get_by_text(f"python -m src.train resume={trained.log_dir}").is_visible()
    picture(watched.page, "report")
