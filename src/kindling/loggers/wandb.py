"""Lightning's Weights & Biases logger, with one W&B run per run directory."""

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.kindling.errors import InputError, first_line, printable
from src.kindling.files.bounded import read_config
from src.kindling.tracking import Tracker, weights

BINS = 64  # per histogram
OFFLINE_HINT = "logger.wandb.offline=true keeps everything on this machine"
UPLOAD_SECONDS = 60  # to wait for an upload at the end; the rest stays in <run>/wandb


class WandbLogger(Tracker, LightningWandbLogger):
    """Log metrics, configuration, pictures, histograms and the outcome of a run to W&B.

    Args:
        save_dir: the run directory.
        project: the W&B project.
        name: name of the W&B run; None for the name of the run directory.
        offline: keep everything in `<save_dir>/wandb`, for `wandb sync`.
        tags: tags of the run.
        checkpoint: upload best.ckpt as an artifact at the end.
        more: other arguments of `wandb.init`: entity, group, notes, ...
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "kindling",
        name: str | None = None,
        offline: bool = False,
        tags: list[str] | None = None,
        checkpoint: bool = False,
        **more: Any,
    ) -> None:
        import wandb

        stored_id = self.open_state(Path(save_dir), "wandb")
        self.checkpoint = checkpoint
        quiet = wandb.Settings(silent=True, console="off", finish_timeout=UPLOAD_SECONDS)
        wandb.setup(quiet)  # also before a run is open
        mode = os.environ.get("WANDB_MODE") or "online"
        self.online = not offline and mode in ("online", "run", "shared")
        super().__init__(
            save_dir=save_dir,
            project=project,
            name=name or Path(save_dir).name,
            id=stored_id or uuid.uuid4().hex[:8],
            mode="offline" if offline else None,
            tags=tags,
            settings=quiet,
            **more,
        )

    def check(self) -> None:
        """Check that the user is logged in to W&B.

        Raises:
            InputError: not logged in, or W&B does not respond.
        """
        import wandb

        if not self.online:
            return
        try:
            logged_in = wandb.login(prompt=False, verify=True)
        except Exception as error:
            raise InputError(f"logger.wandb: {first_line(error)}; {OFFLINE_HINT}") from error
        if not logged_in:
            raise InputError(f"logger.wandb: not logged in; run `wandb login`, or {OFFLINE_HINT}")

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Start or continue the W&B run, and log the configuration of the run directory."""
        self.experiment.config.update(read_config(self.run / "config.yaml"), allow_val_change=True)
        self.write_state()
        where = self.experiment.url if self.online else f"{self.run}/wandb (offline)"
        print(printable(f"wandb: {where}"), flush=True)

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, title: str, step: int) -> None:
        """Log a picture with its title as the caption."""
        self.log_image(f"views/{name}", [self.image(png)], step, caption=[title])

    @rank_zero_only
    def log_histograms(self, model: Any, step: int) -> None:
        """Log histograms of the weights, and of the gradients of the last step."""
        import wandb

        counts = {name: np.histogram(v.cpu().numpy(), BINS) for name, v in weights(model)}
        found = {name: wandb.Histogram(np_histogram=pair) for name, pair in counts.items()}
        self.log_metrics(found, step)

    @rank_zero_only
    def log_end(self, status: str, metrics: dict[str, float]) -> None:
        """Log the outcome and the final metrics, and end the W&B run."""
        import wandb

        self.experiment.summary.update({**metrics, "status": status})
        if self.checkpoint and (best := self.best_checkpoint()):
            artifact = wandb.Artifact(f"model-{self.version}", type="model")
            artifact.add_file(str(best))
            self.experiment.log_artifact(artifact)
        self.experiment.finish(exit_code=0 if status == "finished" else 1)
