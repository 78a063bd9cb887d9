"""Lightning's TensorBoard and CSV loggers, writing where a run directory keeps them."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger as LightningCSVLogger
from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class TensorBoardLogger(LightningTensorBoardLogger):
    """Event files in `<save_dir>/tensorboard/`, and one HPARAMS row that has the final metrics.

    Args:
        save_dir: the run directory.
        flush_secs: seconds until a written point is on disk.
    """

    def __init__(self, save_dir: str, flush_secs: int = 10) -> None:
        super().__init__(
            save_dir, name="tensorboard", version="", default_hp_metric=False, flush_secs=flush_secs
        )

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write a point of each metric, but for the epoch: as a chart it would say nothing."""
        super().log_metrics({k: v for k, v in metrics.items() if k != "epoch"}, step)

    def log_hyperparams(self, params: Any, metrics: Any = None, step: Any = None) -> None:
        """Do nothing yet: the HPARAMS row is written once, when the final metrics are known."""

    @rank_zero_only
    def log_final_metrics(self, params: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the HPARAMS row of this run.

        The columns of metrics show the last scalars that were logged under the same names.
        """
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(params, metrics):  # type: ignore[no-untyped-call]
            # The writer that fit() closed is opened again by asking for it.
            self.experiment._get_file_writer().add_summary(summary)

    def save(self) -> None:
        """Do nothing: the writer flushes by itself, and config.yaml has the hyperparameters."""


class _Rows(ExperimentWriter):
    """Lightning's writer, but going on with the file that a resumed run finds."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as lines:
                self.metrics_keys = next(csv.reader(lines), [])


class CSVLogger(LightningCSVLogger):
    """The history in `<save_dir>/metrics.csv`: one row a logged step, one column a metric.

    Args:
        save_dir: the run directory.
        flush_logs_every_n_steps: rows are written to disk when these many steps have passed.
    """

    def __init__(self, save_dir: str, flush_logs_every_n_steps: int = 100) -> None:
        super().__init__(
            save_dir, name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps
        )

    @property
    def experiment(self) -> Any:
        """The writer of the rows; a dummy on ranks other than 0."""
        if self._experiment is None and getattr(rank_zero_only, "rank", 0) == 0:
            self._experiment = _Rows(log_dir=self.log_dir)
        return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any = None, metrics: Any = None) -> None:
        """Do nothing: config.yaml has them."""
