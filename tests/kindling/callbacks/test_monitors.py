"""A metric that is waited for and that nothing logs is refused, early and by name."""

import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.wrappers import ClasswiseWrapper

from src.kindling.build import Experiment
from src.kindling.callbacks.monitors import Monitors, explained
from src.kindling.errors import InputError
from tests.conftest import Command
from tests.kindling.test_plain_modules import Steps

pytestmark = pytest.mark.usefixtures("own_models")

Build = Callable[..., Experiment]
STOP = ["callbacks=early_stopping"]
ACCURACY, LOSS, TRAIN = (
    f"did you mean '{name}'?" for name in ("val/accuracy", "val/loss", "train/loss")
)
KNOWN = [
    (["callbacks.checkpointing.monitor=val/acuracy"], ACCURACY),
    ([*STOP, "callbacks.early_stopping.monitor=val_loss"], LOSS),
    ([*STOP, "trainer.limit_val_batches=0"], TRAIN),
    ([*STOP, "model=teacher", "data.targets=random"], TRAIN),
]


@pytest.mark.parametrize(("words", "hint"), KNOWN, ids=lambda value: " ".join(value))
def test_a_metric_that_is_known_not_to_be_logged_is_refused_before_a_run_directory_exists(
    words: list[str], hint: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.here("train", *words)
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert re.match(r"error: callbacks\.\S+=\S+: no such metric is logged: ", line)
    assert line.endswith(hint)
    assert not command.log_dir.exists()


class Plain(Steps):
    """A module from elsewhere, whose metrics are known when it has logged them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)
        self.read: Any = None
        self.interval = "epoch"

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train_loss", 1.0, on_epoch=True)
        return self.layer(batch[0]).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/accuracy", 1.0)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        if self.read is None:
            return optimizer
        schedule = {"scheduler": ReduceLROnPlateau(optimizer), "monitor": self.read}
        schedule["interval"] = self.interval
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def fit(build: Build, *words: str, callback: Any = None, read: str | None = None) -> pl.Trainer:
    """Train a plain module with a callback of the user's own, or a plateau of its own."""
    ending = ("trainer.max_epochs=8", "logger=none", "steps_per_execution=1")
    experiment = build("trainer.check_val_every_n_epoch=2", *ending, *words)
    experiment.trainer.callbacks[1:1] = [callback] if callback else []
    model = Plain()
    model.read = read
    experiment.trainer.fit(model, datamodule=experiment.data)
    return experiment.trainer


OWN = {
    "EarlyStopping": lambda name: {"callback": EarlyStopping(name)},
    "ModelCheckpoint": lambda name: {"callback": ModelCheckpoint(monitor=name)},
    "lr_scheduler": lambda name: {"read": name},
}


# Lightning itself reads the metric of a schedule after each epoch, and refuses it then.
@pytest.mark.parametrize(
    ("own", "every"), [(own, n) for own in OWN for n in (1, 2) if (own, n) != ("lr_scheduler", 2)]
)
@pytest.mark.parametrize("metric", ["val/acuracy", "train_los"])
def test_a_users_own_callback_or_schedule_is_refused_at_the_first_validation(
    own: str, every: int, metric: str, build: Build
) -> None:
    near = {"val/acuracy": "val/accuracy", "train_los": "train_loss"}[metric]
    with pytest.raises(InputError, match=f"^{own}.monitor={metric}: .* did you mean '{near}'"):
        fit(build, f"trainer.check_val_every_n_epoch={every}", **OWN[own](metric))


@pytest.mark.parametrize(
    ("own", "metric"),
    [(own, name) for own in OWN for name in ("val/accuracy", "train_loss")]
    + [("ModelCheckpoint", "epoch")],
)
def test_a_metric_that_is_logged_is_waited_for(own: str, metric: str, build: Build) -> None:
    each = "trainer.check_val_every_n_epoch=1"  # EarlyStopping looks when an epoch ends
    assert fit(build, each, **OWN[own](metric)).current_epoch > 1


def test_a_sanity_check_refuses_before_the_first_step(build: Build) -> None:
    def step(*_: Any) -> None:
        raise AssertionError("a step was taken")

    early = ModelCheckpoint(monitor="val/acuracy")
    early.on_train_batch_start = step  # type: ignore[method-assign]
    with pytest.raises(InputError, match="val/acuracy"):
        fit(build, "trainer.num_sanity_val_steps=1", callback=early)


def test_a_point_that_comes_too_late_for_early_stopping_is_said(build: Build) -> None:
    words = [*STOP, "callbacks.early_stopping.monitor=train/loss"]
    message = "logged every 50 steps, and needed after step 8; set trainer.log_every_n_steps to 8"
    with pytest.raises(InputError, match=message):
        fit(build, *words)
    fit(build, *words, "trainer.log_every_n_steps=8")


def test_without_the_default_metric_one_line_says_what_best_means(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(build)
    [line] = capsys.readouterr().err.splitlines()
    assert "the last checkpoint counts as the best; callbacks.checkpointing.monitor= names" in line


def test_names_are_known_only_where_nothing_else_may_log(build: Build) -> None:
    class Logs(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module.log("val/acuracy", 1.0)

    experiment = build("callbacks.checkpointing.monitor=val/acuracy")
    trainer, model = experiment.trainer, experiment.model
    [monitors] = [c for c in trainer.callbacks if isinstance(c, Monitors)]
    with pytest.raises(InputError, match="val/acuracy"):
        monitors.check_known(trainer, model, validates=True)
    wrapped = ClasswiseWrapper(MulticlassAccuracy(2, average=None))
    with mock.patch.object(model, "metrics", return_value={"accuracy": wrapped}):
        monitors.check_known(trainer, model, validates=True)
    trainer.callbacks.append(Logs())
    monitors.check_known(trainer, model, validates=True)


@pytest.mark.parametrize(
    ("metric", "interval", "every", "said"),
    [
        ("val/acuracy", "epoch", 2, r"up to step 4,.*every 2 epochs.*\"frequency\": 2"),
        ("val/accuracy", "epoch", 2, r"up to step 4,.*every 2 epochs.*\"frequency\": 2"),
        ("train_los", "step", 1, "up to step 1, .*did you mean 'train_loss"),
    ],
)
def test_a_schedule_that_reads_a_metric_before_it_is_logged_is_explained(
    metric: str, interval: str, every: int, said: str, build: Build
) -> None:
    words = (f"trainer.check_val_every_n_epoch={every}", "logger=none", "steps_per_execution=1")
    experiment = build("trainer.max_epochs=8", *words)
    model = Plain()
    model.read, model.interval = metric, interval
    with (
        pytest.raises(
            InputError, match=f"^lr_scheduler.monitor={metric}: no such metric is logged {said}"
        ),
        explained(experiment.trainer),
    ):
        experiment.trainer.fit(model, datamodule=experiment.data)
