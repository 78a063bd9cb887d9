"""Lightning's MLflow logger, with one MLflow run per run directory."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from lightning.pytorch.loggers import MLFlowLogger as LightningMLFlowLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.kindling.errors import InputError, first_line, printable
from src.kindling.tracking import Tracker

STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "pruned": "KILLED"}
SERVER = os.environ.get("MLFLOW_TRACKING_URI")  # read on import, because MLflow overwrites it
DEFAULTS = {  # of MLflow's environment variables
    # Otherwise a server that stops responding would block training for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # for its import; creating a database is verbose
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # we print one line instead
}


class MLFlowLogger(Tracker, LightningMLFlowLogger):
    """Log metrics, parameters, configuration, pictures and the outcome of a run to MLflow.

    Args:
        save_dir: the run directory, `<log_dir>/<command>/<model>/<run>`.
        experiment_name: the MLflow experiment.
        run_name: name of the MLflow run; None for the name of the run directory.
        tracking_uri: the server; None for MLFLOW_TRACKING_URI, or else `<log_dir>/mlflow.db`.
        tags: tags of the run.
        checkpoint: upload best.ckpt as an artifact at the end.
        more: other arguments of Lightning's logger: prefix, artifact_location, ...
    """

    def __init__(
        self,
        save_dir: str,
        experiment_name: str = "kindling",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
        checkpoint: bool = False,
        **more: Any,
    ) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        run = Path(save_dir).resolve()
        self.checkpoint = checkpoint
        self.uri = tracking_uri or SERVER
        stored_id = self.open_state(run, "mlflow")
        if not self.uri:
            log_dir = [*run.parents][:3][-1]
            self.uri = f"sqlite:///{log_dir / 'mlflow.db'}"
            more.setdefault("artifact_location", (log_dir / "mlflow").as_uri())
            if not (log_dir / "mlflow.db").exists():  # the run was moved, or the database removed
                stored_id, self.logged = None, {}
        super().__init__(
            experiment_name=experiment_name,
            run_name=run_name or run.name,
            tracking_uri=self.uri,
            tags=tags,
            run_id=stored_id,
            **more,
        )

    def check(self) -> None:
        """Check that the server responds; the run itself creates a database file.

        Raises:
            InputError: the server does not respond, or a package is missing.
        """
        from mlflow import MlflowClient

        if str(self.uri).startswith("sqlite:"):
            import sqlalchemy  # noqa: F401 # not in the package mlflow-skinny

            return
        try:
            if str(self.uri).startswith("http"):  # MLflow itself would retry for most of a minute
                with contextlib.suppress(HTTPError):  # any response will do
                    urlopen(f"{self.uri}/health", timeout=10).close()
            MlflowClient(self.uri).search_experiments(max_results=1)
        except Exception as error:
            line = first_line(error)[:200]
            raise InputError(f"logger.mlflow.tracking_uri={self.uri}: {line}") from error

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Start or continue the MLflow run, and log its parameters and configuration.

        MLflow's parameters are immutable: a change by a resumed run becomes a tag
        `changed.<parameter>`.
        """
        client, run_id = self.experiment, self.run_id
        self.write_state()
        client.update_run(run_id, status="RUNNING")
        logged = client.get_run(run_id).data.params
        super().log_hyperparams({key: v for key, v in params.items() if key not in logged})
        for key, value in params.items():
            if key in logged and str(value)[:250] != logged[key]:
                client.set_tag(run_id, f"changed.{key}", value)
        client.log_artifact(run_id, str(self.run / "config.yaml"))
        print(printable(f"mlflow: {self.uri}, run {run_id}"), flush=True)

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, title: str, step: int) -> None:
        """Log a picture."""
        if self.is_new(f"views/{name}", step):
            image = self.image(png).convert("RGB")
            self.experiment.log_image(self.run_id, image, key=f"views/{name}", step=step)
            self.logged[f"views/{name}"] = step
            self.write_state()

    @rank_zero_only
    def log_end(self, status: str, metrics: dict[str, float]) -> None:
        """Log the outcome and the final metrics, and end the MLflow run."""
        client, run_id = self.experiment, self.run_id
        client.log_dict(run_id, metrics, "metrics.json")
        client.set_tag(run_id, "status", status)
        if self.checkpoint and (best := self.best_checkpoint()):
            client.log_artifact(run_id, str(best), "checkpoints")
        client.set_terminated(run_id, STATUS[status])
