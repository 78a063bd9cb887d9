"""TensorBoard's tabs show the runs' data in a real browser."""

import json

from tests.browser.conftest import Watched
from tests.conftest import Command

PATIENCE = 20_000  # milliseconds; a tab takes some thousands


def seen(page, text: str, count: int = 1) -> None:
    """Wait until a text is to be seen, at least so many times."""
    page.get_by_text(text, exact=True).locator("visible=true").nth(count - 1).wait_for(
        timeout=PATIENCE
    )


def tab(opened, tensorboard: str, name: str) -> Watched:
    """Open a tab of TensorBoard."""
    watched = opened()
    watched.page.goto(f"{tensorboard}/#{name}")
    seen(watched.page, "TensorBoard")
    return watched


def harmless(watched: Watched, tensorboard: str) -> None:
    """Hold that the tab had no error, and asked no other machine than this."""
    assert watched.errors == []
    elsewhere = [url for url in watched.requests if not url.startswith((tensorboard, "data:"))]
    assert elsewhere == []


def test_time_series_show_each_metric_with_its_values(
    opened, tensorboard: str, trained: Command
) -> None:
    watched = tab(opened, tensorboard, "timeseries")
    for name in ("train/loss", "test/accuracy", "test/loss"):
        watched.page.get_by_role("combobox", name="Filter tags").fill(f"^{name}$")
        seen(watched.page, name)
    metrics = json.loads((trained.latest / "metrics.json").read_text())
    seen(watched.page, f"{metrics['test/loss']:.4f}".rstrip("0"))
    harmless(watched, tensorboard)


def test_scalars_draw_a_line_a_run(opened, tensorboard: str) -> None:
    watched = tab(opened, tensorboard, "scalars")
    for name in ("train/loss", "train/gradient_norm", "test/accuracy"):
        seen(watched.page, name)
    for number in (1, 2, 3):
        watched.page.get_by_text("fizzbuzz/2").locator("visible=true").nth(number - 1).wait_for()
    harmless(watched, tensorboard)


def test_custom_scalars_answer_three_questions(opened, tensorboard: str, picture) -> None:
    watched = tab(opened, tensorboard, "custom_scalars")
    for question in ("Is it learning?", "Is it fast?", "Is it healthy?"):
        seen(watched.page, question)
    seen(watched.page, "loss of training and validation")
    seen(watched.page, "Matches (6)")  # training and validation, of three runs
    picture(watched.page, "dashboard")
    harmless(watched, tensorboard)


def test_hparams_list_each_run_once_with_its_settings(opened, tensorboard: str) -> None:
    watched = tab(opened, tensorboard, "hparams")
    for name in ("optimizer.lr", "optimizer.weight_decay", "data.batch_size"):
        seen(watched.page, name)
    seen(watched.page, "AdamW", 3)  # two runs, and the box that chooses them
    seen(watched.page, "SGD", 2)
    assert watched.page.get_by_text("fizzbuzz/2", exact=False).locator("visible=true").count() == 3
    harmless(watched, tensorboard)


def test_images_show_the_figures(opened, tensorboard: str, trained: Command) -> None:
    watched = tab(opened, tensorboard, "images")
    figures = {path.stem for path in (trained.latest / "figures").glob("*.png")}
    assert figures >= {"board", "confusion", "calibration"}
    seen(watched.page, "views/board", 3)
    watched.page.wait_for_function(LOADED, timeout=PATIENCE)
    harmless(watched, tensorboard)


# Whether there are loaded pictures in the nested shadow trees that TensorBoard is made of.
LOADED = """() => {
  const below = (root) => [...root.querySelectorAll("*")].flatMap(
    (node) => [node, ...(node.shadowRoot ? below(node.shadowRoot) : [])]);
  const found = below(document).filter((node) => node.tagName === "IMG" && node.naturalWidth > 300);
  return found.length >= 3;
}"""
