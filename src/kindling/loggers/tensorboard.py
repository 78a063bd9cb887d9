"""Lightning's TensorBoard logger, writing to the run directory.

Its history can be truncated: `position` returns the end of the history on disk when a checkpoint is
written, and `truncate_to` returns to it, so that a resumed run neither loses nor repeats a point.
"""

import os
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.kindling.errors import first_line
from src.kindling.loggers import records
from src.kindling.tracking import weights

SETTINGS = "events.out.tfevents.0.settings"  # the row of HPARAMS; this name is read first
BINS = 64  # per histogram; TensorBoard displays 30


class TensorBoardLogger(LightningTensorBoardLogger):
    """Write event files in `<save_dir>/tensorboard/` for the tabs of TensorBoard.

    Constant information (configuration, graph, layout) is written once, when the run first starts;
    resuming does not repeat it.

    Args:
        save_dir: the run directory.
        flush_secs: seconds between writes to disk.
        graph: whether to trace the network for the Graphs tab at the start.
        histograms: whether to log histograms of weights and gradients when pictures are drawn.
    """

    def __init__(
        self, save_dir: str, flush_secs: int = 10, graph: bool = True, histograms: bool = True
    ) -> None:
        super().__init__(
            save_dir, name="tensorboard", version="", default_hp_metric=False, flush_secs=flush_secs
        )
        self.graph, self.histograms = graph, histograms
        self._started = self._traced = bool(self._files())  # if resumed

    @property
    def log_dir(self) -> str:
        """The folder of the event files; a `$NAME` or `~` in its path is not expanded."""
        return str(Path(self.save_dir, "tensorboard"))

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write a point per metric, except for the epoch, whose chart would be useless."""
        points = {name: value for name, value in metrics.items() if name != "epoch"}
        if points and all(isinstance(value, float | int) for value in points.values()):
            self._add(records.scalars(points), step)  # one record: seven took 0.3 ms
        else:
            super().log_metrics(points, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: Any = None) -> None:
        """Write the run's row in the HPARAMS tab, its texts, and the layout of its charts.

        The metrics of the row are the last scalars, so running and failed runs have them too.
        """
        run = Path(self.save_dir)
        name = f"{run.parent.name}/{run.name}"
        records.write_session_start(Path(self.log_dir, SETTINGS), name, params)
        if self._started:
            return
        self._started = True
        self.experiment.add_custom_scalars(records.LAYOUT)
        for tag, text in records.texts(run).items():
            self.experiment.add_text(tag, text)

    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Write the graph of the network; Lightning calls this when training or testing starts."""
        if self._traced or not self.graph or (found := records.traceable(model)) is None:
            return
        self._traced = True
        try:
            graph = records.graph(*found)
        except Exception as error:  # not every network can be traced, which must not stop the run
            line = f"no graph of the network, which cannot be traced: {first_line(error)}"
            print(f"warning: {line}; logger.tensorboard.graph=false leaves it out", file=sys.stderr)
        else:
            self.experiment._get_file_writer().add_event(graph)

    @rank_zero_only
    def log_histograms(self, model: Any, step: int) -> None:
        """Write histograms of the weights, and of the gradients of the last step."""
        for name, values in weights(model) if self.histograms else ():
            self.experiment.add_histogram(name, values, step, bins=BINS)

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, title: str, step: int) -> None:
        """Write a picture, given as the content of a PNG file, with its title."""
        # Not figures/...: the first page is sorted by name, and should begin with the scalars.
        self._add(records.picture(f"views/{name}", png, title), step)

    @rank_zero_only
    def log_precision_recall(self, name: str, true: Any, probabilities: Any, step: int) -> None:
        """Write a class's curve for the PR Curves tab, from labels [N] and probabilities [N]."""
        self.experiment.add_pr_curve(f"precision_recall/{name}", true, probabilities, step)

    @rank_zero_only
    def log_end(self, status: str, metrics: dict[str, float]) -> None:
        """Write the outcome of the run; nothing if it was stopped, because it may be resumed."""
        if status != "stopped":
            self._add(records.session_end(status == "finished"))
            self.finalize("success")

    @rank_zero_only
    def save(self) -> None:
        """Flush the history to disk; the hyperparameters are in config.yaml."""
        if self._experiment is not None:
            self.experiment.flush()

    def position(self) -> dict[str, int]:
        """Flush the history to disk, and return the size of each event file in bytes."""
        self.save()
        return {path.name: path.stat().st_size for path in self._files()}

    def truncate_to(self, position: dict[str, int] | None) -> None:
        """Remove the records after a position; None removes all."""
        for path in self._files():
            size = (position or {}).get(path.name, 0)
            if size == 0 or path.is_symlink():  # a link may lead to a foreign file
                path.unlink()
            elif path.stat().st_size > size:
                os.truncate(path, size)
        self._started = self._traced = bool(self._files())

    def _files(self) -> list[Path]:
        """Return the event files that records are appended to."""
        folder = Path(self.log_dir)
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(folder / name for name in names if "tfevents" in name and name != SETTINGS)

    def _add(self, summary: Any, step: int | None = None) -> None:
        # Accessing the writer reopens it after fit() has closed it.
        self.experiment._get_file_writer().add_summary(summary, step)
