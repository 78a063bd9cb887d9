"""Loggers are told how a run begins and ends; a tracker that fails costs one line, not the run."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger

from src.kindling.build import build_logger
from src.kindling.errors import InputError
from src.kindling.process.signals import Stopped
from src.kindling.tracking import Tracker, forgiven, tracked


class Kept(Logger):
    """A tracker that keeps what it is told."""

    def __init__(self, save_dir: str = "", broken: bool = False) -> None:
        super().__init__()
        self.folder, self.broken = save_dir, broken
        self.told: list[Any] = []

    name, version = "kept", "7"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.told.append(("begin", params))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if self.broken:
            raise ConnectionError("no route to host\nand more")
        self.told.append((step, metrics))

    def log_end(self, status: str, metrics: dict[str, float]) -> None:
        self.told.append((status, dict(metrics)))


class Elsewhere(Kept):
    """A tracker that has no use for the run directory."""

    def __init__(self) -> None:
        super().__init__()


class Unreachable(Kept):
    def check(self) -> None:
        raise InputError("logger.unreachable: no server")


def test_only_a_logger_that_takes_a_save_dir_is_given_the_run_directory(tmp_path: Path) -> None:
    here = f"{__name__}."
    assert build_logger({"_target_": here + "Kept"}, tmp_path).folder == str(tmp_path)
    assert build_logger({"_target_": here + "Kept", "save_dir": "x"}, tmp_path).folder == "x"
    assert build_logger({"_target_": here + "Elsewhere"}, tmp_path).folder == ""


def test_a_tracker_is_checked_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no server"):
        build_logger({"_target_": f"{__name__}.Unreachable"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


class PrunedError(Exception):
    run_status = "pruned"


@pytest.mark.parametrize(
    ("how", "status"),
    [
        (None, "finished"),
        (Stopped(15, "stopped"), "stopped"),
        (ValueError("nan"), "failed"),
        (KeyboardInterrupt(), "failed"),
        (PrunedError(), "pruned"),
    ],
)
def test_a_logger_is_told_how_a_run_began_and_ended(how: Any, status: str) -> None:
    logger = Kept()
    with (
        pytest.raises(type(how)) if how else open("/dev/null"),
        tracked([logger], {"lr": 1}, {"test/loss": 0.5}),
    ):
        if how:
            raise how
    assert logger.told == [("begin", {"lr": 1}), (status, {"test/loss": 0.5})]


def test_a_tracker_that_fails_costs_one_line_and_still_hears_of_the_end(capsys: Any) -> None:
    logger = forgiven(Kept(broken=True))
    with tracked([logger], {}, {}):
        for step in range(3):
            logger.log_metrics({"loss": 1.0}, step)
    line = "warning: Kept: no route to host; this run is no longer logged there\n"
    assert capsys.readouterr().err == line
    assert logger.told == [("begin", {}), ("finished", {})]
    assert isinstance(logger, Kept)


class Unopened(Kept):
    """A tracker whose run cannot be opened, which Lightning asks for when a fit begins."""

    tries = 0

    @property
    def experiment(self) -> Any:
        self.tries += 1
        raise ConnectionError("no route to host")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.experiment.config.update(params)


def test_a_tracker_whose_run_cannot_be_opened_costs_one_line_and_is_asked_once(
    capsys: Any,
) -> None:
    logger = forgiven(Unopened())
    with tracked([logger], {}, {}):
        logger.experiment.log({"loss": 1.0})  # as a module's own call
        logger.log_metrics({"loss": 1.0}, 1)
    line = "warning: Unopened: no route to host; this run is no longer logged there\n"
    assert capsys.readouterr().err == line
    assert (logger.told, logger.tries) == ([], 1)


class Remote(Tracker, Kept):
    """A tracker whose run is continued."""

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.known = self.open_state(Path(save_dir), "remote")


def test_a_resumed_run_tells_a_tracker_only_the_points_that_it_lacks(tmp_path: Path) -> None:
    first = Remote(str(tmp_path))
    assert first.known is None
    first.log_metrics({"train/loss": 3.0, "epoch": 0}, 9)
    first.log_metrics({"train/loss": 2.0}, 19)
    first.log_metrics({"val/loss": 2.5}, 19)  # of the same step, later
    second = Remote(str(tmp_path))
    assert second.known == "7"
    second.log_metrics({"train/loss": 2.0}, 19)
    second.log_metrics({"val/loss": 2.5, "val/r2": 0.5}, 19)
    second.log_metrics({"train/loss": 1.0}, 29)
    assert first.told == [
        (9, {"train/loss": 3.0}),
        (19, {"train/loss": 2.0}),
        (19, {"val/loss": 2.5}),
    ]
    assert second.told == [(19, {"val/r2": 0.5}), (29, {"train/loss": 1.0})]


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", '{"id": 1}', '{"id": "a", "logged": 3}', "{" * 9999),
        *('{"id": null, "logged": {}}', '{"id": "../a", "logged": {}}'),
        '{"id": "a", "logged": {"train/loss": 1e400}}',
    ],
)
def test_a_damaged_file_of_a_tracker_begins_a_new_run_there(content: str, tmp_path: Path) -> None:
    (tmp_path / "remote.json").write_text(content)
    assert Remote(str(tmp_path)).known is None
    (tmp_path / "remote.json").write_text(json.dumps({"id": "a", "logged": {}}))
    assert Remote(str(tmp_path)).known == "a"
