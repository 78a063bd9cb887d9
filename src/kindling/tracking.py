"""What loggers are told about a run, beyond Lightning's own calls, and trackers that take it.

A logger may define, each for itself:

- `check()`: raise an InputError before anything is made (not logged in, no server);
- `log_picture(name, png, title, step)`, `log_histograms(model, step)`,
  `log_precision_recall(name, true, probabilities, step)`: from callbacks/figures.py;
- `log_end(status, metrics)`: the run is "finished", "stopped", "failed" or "pruned";
- `mark()` and `cut(mark)`: where its history is on disk, and back to there when a run is resumed.
"""

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from src.kindling.errors import InputError, first_line
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
    """Tell loggers how a run begins and how it ends, whatever ends it.

    Args:
        loggers: the trainer's.
        hyperparameters: the settings that runs are compared by.
        metrics: the final ones, filled by the time that the run ends.
    """

    def at_once(failure: str | None) -> bool:  # the process ends without unwinding
        _end(loggers, "failed" if failure else "stopped", metrics)
        return False

    for logger in loggers:
        logger.log_hyperparams(hyperparameters)
    status = "failed"
    try:
        with signals.at_exit(at_once):
            yield
        status = "finished"
    except SystemExit:
        status = "stopped"
        raise
    except Exception as error:
        status = "pruned" if type(error).__name__ == "TrialPruned" else "failed"
        raise
    finally:
        _end(loggers, status, metrics)


def _end(loggers: list[Any], status: str, metrics: dict[str, float]) -> None:
    for logger in loggers:
        # A disk that is full for the history too must not hide what ended the run.
        with contextlib.nullcontext() if status == "finished" else contextlib.suppress(Exception):
            if hasattr(logger, "log_end"):
                logger.log_end(status, metrics)


def forgiven(logger: Any) -> Any:
    """Return a logger whose failures cost one warning line, and never the run.

    One that keeps its history in the run directory is returned as it is: an exact resume needs it.
    """
    if hasattr(logger, "mark"):
        return logger
    failed: list[str] = []
    for name in CALLS:
        if hasattr(logger, name):
            setattr(logger, name, _forgiven(getattr(logger, name), type(logger).__name__, failed))
    return logger


def _forgiven(call: Callable[..., Any], name: str, failed: list[str]) -> Callable[..., Any]:
    @functools.wraps(call)
    def tried(*arguments: Any, **named: Any) -> Any:
        if failed and call.__name__ != "log_end":  # an end may still get through
            return None
        try:
            return call(*arguments, **named)
        except Exception as error:
            if not failed:
                failed.append(name)
                line = f"warning: {name}: {first_line(error)}; it gets no more of this run"
                print(line, file=sys.stderr)
            return None

    return tried


class Tracker:
    """Mixin for Lightning's logger of a tracker: one run there per run directory.

    The tracker's id of the run, and how far its history has come, are in the run directory. A
    resumed run continues the tracker's run, and leaves out the points that are there already: they
    are the same, as a resumed run repeats the steps since its checkpoint exactly.
    """

    def open_state(self, run: Path, kind: str) -> str | None:
        """Read `<run>/<kind>.json`; return the tracker's id of the run, None for a new run."""
        self.run, self.kind = run, kind
        self.logged: dict[str, int] = {}  # metric -> last step
        damaged = (InputError, AttributeError, TypeError, ValueError, LookupError)
        with contextlib.suppress(*damaged):  # or not there: then the tracker gets a new run
            state = read_json(run / f"{kind}.json")
            logged = {str(name): int(step) for name, step in state["logged"].items()}
            self.logged = logged
            return str(state["id"])
        return None

    def write_state(self) -> None:
        """Write the tracker's id of the run, and how far its history has come."""
        text = json.dumps({"id": self.version, "logged": self.logged})  # type: ignore[attr-defined]
        temporary = self.run / f".{self.kind}.json"
        temporary.write_text(text, encoding="utf-8")  # no fsync: it is written at every point
        temporary.replace(self.run / f"{self.kind}.json")

    def is_new(self, name: str, step: int | None) -> bool:
        """Say whether the tracker lacks a point."""
        return name != "epoch" and (step is None or step > self.logged.get(name, -1))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log the points that the tracker lacks."""
        fresh = {name: value for name, value in metrics.items() if self.is_new(name, step)}
        if not fresh:
            return
        super().log_metrics(fresh, step)  # type: ignore[misc]
        if step is not None:
            self.logged |= dict.fromkeys(fresh, step)
            self.write_state()

    def finalize(self, status: str = "success") -> None:
        """Do nothing: Lightning calls this after a fit and after a test; `log_end` ends the run."""

    def best_checkpoint(self) -> Path | None:
        """Return the run's best checkpoint, if there is one."""
        path = self.run / "checkpoints" / "best.ckpt"
        return path if path.is_file() else None
