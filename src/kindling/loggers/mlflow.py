"""MLflow: Lightning's logger, for one MLflow run per run directory."""

import contextlib
import io
import logging
import os
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from lightning.pytorch.loggers import MLFlowLogger as LightningMLFlowLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.kindling.errors import InputError, first_line
from src.kindling.tracking import Tracker

STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "pruned": "KILLED"}
SERVER = os.environ.get("MLFLOW_TRACKING_URI")  # now: MLflow sets it to what it was last given
DEFAULTS = {  # of MLflow's environment variables
    # A server that stops answering would otherwise stop training for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # one line of ours says it
}


class MLFlowLogger(Tracker, LightningMLFlowLogger):
    """Metrics, parameters, configuration, pictures and the outcome of a run, in MLflow.

    Args:
        save_dir: the run directory, `<log_dir>/<command>/<model>/<run>`.
        experiment_name: the MLflow experiment.
        run_name: the run's name there; None takes the run directory's.
        tracking_uri: the server; None takes MLFLOW_TRACKING_URI, or else `<log_dir>/mlflow.db`.
        tags: labels of the run.
        checkpoint: upload best.ckpt at the end, as an artifact.
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
            logging.getLogger(name).setLevel(logging.ERROR)  # a new database tells its whole story
        run = Path(save_dir).resolve()
        self.checkpoint = checkpoint
        self.uri = tracking_uri or SERVER
        if not self.uri:
            self.uri = f"sqlite:///{run.parents[2] / 'mlflow.db'}"
            more.setdefault("artifact_location", (run.parents[2] / "mlflow").as_uri())
        known = self.open_state(run, "mlflow")
        super().__init__(
            experiment_name=experiment_name,
            run_name=run_name or run.name,
            tracking_uri=self.uri,
            tags=tags,
            run_id=known,
            **more,
        )

    def check(self) -> None:
        """Check that the server answers; a database file is made by the run.

        Raises:
            InputError: it does not, or a package is missing.
        """
        from mlflow import MlflowClient

        if str(self.uri).startswith("sqlite:"):
            import sqlalchemy  # noqa: F401 # not in the package mlflow-skinny

            return
        try:
            if str(self.uri).startswith("http"):  # MLflow itself would try for most of a minute
                with contextlib.suppress(HTTPError):  # an answer of any kind
                    urlopen(f"{self.uri}/health", timeout=10).close()
            MlflowClient(self.uri).search_experiments(max_results=1)
        except Exception as error:
            line = first_line(error)[:200]
            raise InputError(f"logger.mlflow.tracking_uri={self.uri}: {line}") from error

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Open or continue the MLflow run, with its parameters and the whole configuration.

        MLflow's parameters are final: what a resumed run changes is a tag `changed.<parameter>`.
        """
        client, run_id = self.experiment, self.run_id
        self.write_state()
        client.update_run(run_id, status="RUNNING")
        there = client.get_run(run_id).data.params
        super().log_hyperparams({key: v for key, v in params.items() if key not in there})
        for key, value in params.items():
            if key in there and str(value)[:250] != there[key]:
                client.set_tag(run_id, f"changed.{key}", value)
        client.log_artifact(run_id, str(self.run / "config.yaml"))
        print(f"mlflow: {self.uri}, run {run_id}", flush=True)

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, title: str, step: int) -> None:
        """Log a picture."""
        from PIL import Image

        if self.is_new(f"views/{name}", step):
            image = Image.open(io.BytesIO(png)).convert("RGB")
            self.experiment.log_image(self.run_id, image, key=f"views/{name}", step=step)
            self.logged[f"views/{name}"] = step
            self.write_state()

    @rank_zero_only
    def log_end(self, status: str, metrics: dict[str, float]) -> None:
        """Write the outcome and the final metrics, and end the MLflow run."""
        client, run_id = self.experiment, self.run_id
        client.log_dict(run_id, metrics, "metrics.json")
        client.set_tag(run_id, "status", status)
        if self.checkpoint and (best := self.best_checkpoint()):
            client.log_artifact(run_id, str(best), "checkpoints")
        client.set_terminated(run_id, STATUS[status])
