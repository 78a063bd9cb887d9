"""A Lightning logger of DVCLive, with its files in the run directory."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.kindling.files.bounded import read_config
from src.kindling.tracking import Tracker


class _Live(Logger):
    """Write points by step.

    DVCLive's own logger for Lightning takes step 0 for step 1, and reads the entire history back
    whenever it writes a point.
    """

    name, version = "dvclive", ""
    experiment: Any = None  # on ranks other than 0

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Append points to `plots/metrics`, and write the newest values to `metrics.json`."""
        self.experiment.step = step
        for name, value in metrics.items():
            self.experiment.log_metric(name, float(value))
        self.experiment.make_summary()


class DVCLiveLogger(Tracker, _Live):
    """Write metrics, configuration, pictures and the outcome of a run to `<save_dir>/dvclive`.

    Args:
        save_dir: the run directory.
        report: a page about the run in that folder, written at the end: html, md or None.
        more: other arguments of `dvclive.Live`: save_dvc_exp, monitor_system, ...
    """

    def __init__(self, save_dir: str, report: str | None = None, **more: Any) -> None:
        import dvclive  # noqa: F401 # fails early if it is not installed

        super().__init__()
        run = Path(save_dir)
        resume = self.open_state(run, "dvclive") is not None
        self.options = {"dvcyaml": None, **more, "report": report, "resume": resume}

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Open DVCLive's folder, and write the configuration of the run directory to it."""
        from dvclive import Live

        self.experiment = Live(str(self.run / "dvclive"), **self.options)
        self.experiment.log_params(read_config(self.run / "config.yaml"))

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, title: str, step: int) -> None:
        """Write a picture to `plots/images`; the newest replaces the previous one."""
        self.experiment.log_image(f"views/{name}.png", self.image(png))

    @rank_zero_only
    def log_end(self, status: str, metrics: dict[str, float]) -> None:
        """Write the outcome and the final metrics to `metrics.json`."""
        for name, value in metrics.items():
            self.experiment.log_metric(name, value, plot=False)
        self.experiment.summary["status"] = status
        self.experiment.end()
