"""The extended interface of loggers, beyond Lightning's, and a base for experiment trackers.

A logger may define any of these methods:

- `check()`: raise an InputError before anything is created (not logged in, no server);
- `log_picture(name, png, title, step)`, `log_histograms(model, step)`,
  `log_precision_recall(name, true, probabilities, step)`: called by callbacks/figures.py;
- `log_end(status, metrics)`: the run is "finished", "stopped", "failed" or "pruned";
- `position()` and `truncate_to(position)`: the end of its history on disk when a checkpoint is
  saved, and the return to it when the run is resumed.
"""

import contextlib
import functools
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import DummyExperiment

from src.kindling.errors import first_line, printable
from src.kindling.files import run_record
from src.kindling.files.atomic_write import naming
from src.kindling.files.bounded import read_json
from src.kindling.process import signals

CALLS = (
    *("log_metrics", "log_hyperparams", "log_graph", "log_picture", "log_histograms"),
    *("log_precision_recall", "log_end", "save", "finalize", "after_save_checkpoint"),
)


@contextlib.contextmanager
def tracked(
    loggers: list[Any], hyperparameters: dict[str, Any], metrics: dict[str, float]
) -> Iterator[None]:
    """Notify loggers of the start of a run and of its end, however it ends.

    Args:
        loggers: those of the trainer.
        hyperparameters: settings to compare runs by.
        metrics: the final metrics, filled in before the run ends.
    """

    def end_abruptly(failure: str | None) -> bool:  # the process exits without unwinding
        _end(loggers, "failed" if failure else "stopped", metrics)
        return False

    for logger in loggers:
        logger.log_hyperparams(hyperparameters)
    try:
        with signals.at_exit(end_abruptly):
            yield
        status = "finished"
    except BaseException as error:
        status = run_record.status_after(error)
        raise
    finally:
        _end(loggers, status, metrics)


def _end(loggers: list[Any], status: str, metrics: dict[str, float]) -> None:
    for logger in loggers:
        # A disk that is also full for the history must not hide the error that ended the run.
        with contextlib.nullcontext() if status == "finished" else contextlib.suppress(Exception):
            if hasattr(logger, "log_end"):
                logger.log_end(status, metrics)


def forgiven(logger: Any) -> Any:
    """Return a logger whose failures print one warning and never stop the run.

    The failures of a logger that stores its history in the run directory do stop it, since exact
    resuming depends on that history; they name its directory.
    """
    kind = type(logger)
    guarded: dict[str, Any] = {
        name: _guarded(getattr(kind, name)) for name in CALLS if hasattr(kind, name)
    }
    if isinstance(opened := getattr(kind, "experiment", None), property):
        guarded["experiment"] = property(_guarded(opened.fget))
    own = {"__module__": kind.__module__, "failed_call": "", **guarded}
    logger.__class__ = type(kind.__name__, (kind,), own)
    return logger


def _guarded(call: Any) -> Callable[..., Any]:
    name = call.__name__

    @functools.wraps(call)
    def guarded(logger: Any, *arguments: Any, **named: Any) -> Any:
        if hasattr(logger, "position"):
            with naming(logger.log_dir):
                return call(logger, *arguments, **named)
        # The end may still get through, unless the tracker's run was never opened.
        passes = not logger.failed_call or name in ("experiment", "log_end")
        try:
            if passes and logger.failed_call != "experiment":
                return call(logger, *arguments, **named)
        except Exception as error:
            if not logger.failed_call:
                logger.failed_call = name
                line = f"warning: {type(logger).__name__}: {first_line(error)}"
                print(printable(f"{line}; this run is no longer logged there"), file=sys.stderr)
        return DummyExperiment() if name == "experiment" else None

    return guarded


def weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the finite weights of a model and the gradients of its last step, by name."""
    for name, weight in model.named_parameters():
        for kind, values in (("", weight), (".gradient", weight.grad)):
            if values is not None and values.numel() and values.isfinite().all():
                # NumPy lacks bfloat16; float overflows.
                yield f"weights/{name}{kind}", values.detach().double()


class Tracker:
    """Mixin for Lightning's logger of a tracker: one tracker run per run directory.

    The run directory stores the tracker's run id and the last logged step of each metric. A resumed
    run continues the tracker's run and skips the points that are already there: they are identical,
    because a resumed run repeats the steps since its checkpoint exactly.
    """

    def open_state(self, run: Path, kind: str) -> str | None:
        """Read `<run>/<kind>.json`; return the tracker's run id, None for a new run."""
        self.run, self.kind = run, kind
        self.logged: dict[str, int] = {}  # metric -> last step
        with contextlib.suppress(Exception):  # if damaged or missing, the tracker starts a new run
            state = read_json(run / f"{kind}.json")
            logged = {str(name): int(step) for name, step in state["logged"].items()}
            if re.fullmatch(r"[\w-]*", state["id"]):
                self.logged = logged
                return str(state["id"])
        return None

    def write_state(self) -> None:
        """Write the tracker's run id, and the last logged step of each metric."""
        text = json.dumps({"id": self.version, "logged": self.logged})  # type: ignore[attr-defined]
        temporary = self.run / f".{self.kind}.json"
        temporary.write_text(text, encoding="utf-8")  # without fsync: written at every point
        temporary.replace(self.run / f"{self.kind}.json")

    def is_new(self, name: str, step: int | None) -> bool:
        """Return whether the tracker does not have a point yet."""
        return name != "epoch" and (step is None or step > self.logged.get(name, -1))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log the points that the tracker does not have yet."""
        fresh = {name: value for name, value in metrics.items() if self.is_new(name, step)}
        if not fresh:
            return
        super().log_metrics(fresh, step)  # type: ignore[misc]
        if step is not None:
            self.logged |= dict.fromkeys(fresh, step)
            self.write_state()

    def finalize(self, status: str = "success") -> None:
        """Do nothing: Lightning calls this after fit and after test; `log_end` ends the run."""

    @staticmethod
    def image(png: bytes) -> Any:
        """Return a picture of PIL, from the content of a PNG file."""
        from PIL import Image

        return Image.open(io.BytesIO(png))

    def best_checkpoint(self) -> Path | None:
        """Return the best checkpoint of the run; None if it has none."""
        path = self.run / "checkpoints" / "best.ckpt"
        return path if path.is_file() else None
