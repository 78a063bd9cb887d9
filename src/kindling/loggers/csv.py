"""Lightning's CSV logger, extended so that a resumed run continues the history."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger as LightningCSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.kindling.files.atomic_write import write_atomically


class _Rows(ExperimentWriter):
    """Lightning's writer, extended to append to the file of a resumed run.

    Rows are appended in one system call, and a new column rewrites the file atomically: a killed
    process can truncate only the last row.
    """

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys, rows = _read(Path(self.metrics_file_path))
        self.written = len(rows)

    def save(self) -> None:
        """Write the new rows."""
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        if self._record_new_keys():
            rows = [*_read(path)[1], *self.metrics]
            write_atomically(path, _text(self.metrics_keys, rows, header=True))
        else:
            with path.open("ab", buffering=0) as file:
                file.write(_text(self.metrics_keys, self.metrics))
        self.written += len(self.metrics)
        self.metrics = []


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of a CSV file, without a truncated last row."""
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        rows = [row for row in reader if None not in row.values()]
    return list(reader.fieldnames or []), rows


def _text(columns: list[str], rows: list[dict[str, Any]], header: bool = False) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class CSVLogger(LightningCSVLogger):
    """Log the history to `<save_dir>/metrics.csv`: one row per logged step, one column per metric.

    Args:
        save_dir: the run directory.
        flush_logs_every_n_steps: steps between writes to disk.
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
        """Do nothing: they are in config.yaml."""

    @rank_zero_only
    def position(self) -> int:
        """Flush the history to disk, and return its number of rows."""
        self.save()
        return int(self.experiment.written)

    def truncate_to(self, position: int | None) -> None:
        """Remove the rows after a position; None removes all."""
        path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        columns, rows = _read(path)
        if not position:
            path.unlink(missing_ok=True)
        elif columns:
            write_atomically(path, _text(columns, rows[:position], header=True))
