"""Lightning's TensorBoard and CSV loggers, writing where a run directory keeps them.

Both know how to go back: `mark` says how far the history is on disk when a checkpoint is written,
and `cut` lets a resumed run begin with what was there then, no point missing and none twice.
"""

import os
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.kindling.errors import first_line
from src.kindling.loggers import records

SETTINGS = "events.out.tfevents.0.settings"  # the row of HPARAMS; by its name the first to be read
BINS = 64  # of a histogram; TensorBoard shows 30


class TensorBoardLogger(LightningTensorBoardLogger):
    """Event files in `<save_dir>/tensorboard/`, for all tabs of TensorBoard that have something.

    What does not change (hyperparameters, configuration, graph, layout) is written once, when the
    run starts; a resumed run finds it there.

    Args:
        save_dir: the run directory.
        flush_secs: seconds until a written point is on disk.
        graph: whether the network is traced, at the start, for the Graphs tab.
        histograms: whether weights and gradients are counted when the pictures are drawn.
    """

    def __init__(
        self, save_dir: str, flush_secs: int = 10, graph: bool = True, histograms: bool = True
    ) -> None:
        super().__init__(
            save_dir, name="tensorboard", version="", default_hp_metric=False, flush_secs=flush_secs
        )
        self.graph, self.histograms = graph, histograms
        self._started = self._traced = bool(self._files())  # by the run that is resumed

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write a point of each metric, but for the epoch: as a chart it would say nothing."""
        points = {name: value for name, value in metrics.items() if name != "epoch"}
        if points and all(isinstance(value, float | int) for value in points.values()):
            self._add(records.scalars(points), step)  # one record: seven took 0.3 ms
        else:
            super().log_metrics(points, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: Any = None) -> None:
        """Write what the run is: its row of the HPARAMS tab, its texts, the layout of its charts.

        The row's metrics are the last scalars, so that a run that goes on, or failed, has them too.
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
        """Write the network's graph; Lightning calls this when training, or a test, starts."""
        inputs = records.example(model)
        if self._traced or not self.graph or inputs is None:
            return
        self._traced = True
        try:
            graph = records.graph(model.net, inputs)
        except Exception as error:  # a network may do what cannot be traced: no reason to stop
            print(f"warning: the network has no graph: {first_line(error)}", file=sys.stderr)
        else:
            self.experiment._get_file_writer().add_graph(graph)

    @rank_zero_only
    def log_histograms(self, model: Any, step: int) -> None:
        """Write how weights, and the gradients of the last step, are distributed."""
        if not self.histograms:
            return
        for name, weights in model.named_parameters():
            for kind, values in (("", weights), (".gradient", weights.grad)):
                if values is not None and values.numel() and values.isfinite().all():
                    values = values.detach().float()  # NumPy knows no bfloat16
                    self.experiment.add_histogram(f"weights/{name}{kind}", values, step, bins=BINS)

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, title: str, step: int) -> None:
        """Write a picture, a PNG file's content, with a sentence that says what it shows."""
        # Not figures/...: the first page sorts by name, and begins with the scalars.
        self._add(records.picture(f"views/{name}", png, title), step)

    @rank_zero_only
    def log_precision_recall(self, name: str, true: Any, probabilities: Any, step: int) -> None:
        """Write a class's curve for the PR Curves tab: is it one [N]? its probabilities [N]."""
        self.experiment.add_pr_curve(f"precision_recall/{name}", true, probabilities, step)

    @rank_zero_only
    def log_end(self, status: str, metrics: dict[str, float]) -> None:
        """Write how the run ended; of a stopped one nothing, as it may be continued."""
        if status != "stopped":
            self._add(records.session_end(status == "finished"))
            self.finalize("success")

    @rank_zero_only
    def save(self) -> None:
        """Put on disk what was written; config.yaml has the hyperparameters."""
        if self._experiment is not None:
            self.experiment.flush()

    def position(self) -> dict[str, int]:
        """Put on disk what was written, and return the size of each event file."""
        self.save()
        return {path.name: path.stat().st_size for path in self._files()}

    def truncate_to(self, position: dict[str, int] | None) -> None:
        """Remove what was written after a mark, which no record crosses; None removes all."""
        for path in self._files():
            size = (position or {}).get(path.name, 0)
            if size == 0 or path.is_symlink():  # a link may lead to a file that is none of ours
                path.unlink()
            elif path.stat().st_size > size:
                os.truncate(path, size)
        self._started = self._traced = bool(self._files())

    def _files(self) -> list[Path]:
        """The event files that grow."""
        folder = Path(self.log_dir)
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(folder / name for name in names if "tfevents" in name and name != SETTINGS)

    def _add(self, summary: Any, step: int | None = None) -> None:
        # The writer that fit() closed is opened again by asking for it.
        self.experiment._get_file_writer().add_summary(summary, step)
