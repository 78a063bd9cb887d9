"""A LightningModule and a LightningDataModule from elsewhere, which derive from nothing of ours."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, random_split

from src.kindling import build, factories, restore
from src.kindling.config import untrusted
from src.kindling.errors import InputError
from src.kindling.model import BaseModule
from src.kindling.training import resume_fit
from src.kindling.training.stages import has_stage
from tests.kindling.conftest import compose

Build = Callable[..., build.Experiment]


class Steps(pl.LightningModule):
    """The steps of the models below, as in Lightning's own documentation."""

    layer: Any

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", nn.functional.mse_loss(self.layer(batch[0]), batch[1]))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/loss", nn.functional.mse_loss(self.layer(batch[0]), batch[1]))


class PlainModel(Steps):
    """Its own optimizer, and all arguments saved."""

    def __init__(self, width: int = 3, rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["rate"])


class TakesOptimizer(Steps):
    """Takes the factory under our name and saves it, as templates elsewhere do."""

    def __init__(self, optimizer: Any, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 1)

    def configure_optimizers(self) -> Any:
        return self.hparams["optimizer"](self.parameters())


class LateLayers(Steps):
    """Makes its layer where Lightning's documentation puts the layers of sharded models."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer: Any = None

    def configure_model(self) -> None:
        if self.layer is None:
            self.layer = nn.Linear(3, 1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PlainData(pl.LightningDataModule):
    """Twenty rows through torch's DataLoader."""

    def __init__(self, features: list[str] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> Any:
        rows = torch.arange(60.0).reshape(20, 3) / 60
        return DataLoader(TensorDataset(rows, rows.sum(1, keepdim=True)), 5)

    val_dataloader = test_dataloader = train_dataloader


@pytest.fixture
def plain(tmp_path: Path) -> Build:
    """Return a builder of plain modules, with the trainer and callbacks of every run."""

    def built(model: type, *overrides: str, **arguments: Any) -> build.Experiment:
        """Build a model; `data` is the class of its data."""
        data = arguments.pop("data", PlainData)
        settings = compose("trainer.accelerator=cpu", "trainer.max_epochs=2", *overrides)
        settings["callbacks"] = {"checkpointing": settings["callbacks"]["checkpointing"]}
        settings |= {"logger": {}, "steps_per_execution": 1}
        settings["model"] = {"_target_": f"{__name__}.{model.__name__}"}
        settings["data"] = {"_target_": f"{data.__module__}.{data.__name__}", **arguments}
        return build.build(settings, tmp_path)

    return built


def restored(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    """Load a checkpoint of these classes, which stand in no YAML of conf/, as a user's do."""
    monkeypatch.setattr(restore.untrusted, "check", lambda settings, *_: settings)
    monkeypatch.setattr(restore, "validate", lambda settings: None)
    return restore.load(checkpoint)


@pytest.mark.parametrize("kind", [PlainModel, TakesOptimizer, LateLayers])
def test_a_plain_module_trains_and_comes_back_from_its_checkpoint(
    kind: type, plain: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = plain(kind, "scheduler=constant", features=["a", "b"])
    assert has_stage(built.model, built.data, "val")
    built.trainer.fit(built.model, datamodule=built.data)
    settings, _, model = restored(tmp_path / "checkpoints" / "last.ckpt", monkeypatch)
    assert settings == built.config
    assert torch.equal(model.layer.weight, built.model.layer.weight)
    if kind is PlainModel:
        again = kind.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
        assert torch.equal(again.layer.weight, built.model.layer.weight)


def test_a_module_without_a_step_has_no_such_stage(plain: Build) -> None:
    class TrainsOnly(pl.LightningModule):
        pass

    assert not has_stage(TrainsOnly(), PlainData(), "val")
    assert not has_stage(PlainModel(), pl.LightningDataModule(), "test")


class UsesNone(BaseModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class UsesOne(BaseModule):
    def configure_optimizers(self) -> Any:
        return self.made()

    def made(self) -> Any:
        assert self.optimizer_factory is not None
        return self.optimizer_factory([{"params": list(self.parameters())}])


class Extends(BaseModule):
    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()


@pytest.mark.parametrize(
    ("kind", "used"),
    [
        (PlainModel, set()),
        (TakesOptimizer, {"optimizer"}),
        (BaseModule, {"optimizer", "scheduler"}),
        (Extends, {"optimizer", "scheduler"}),
        (UsesOne, {"optimizer"}),
        (UsesNone, set()),
    ],
)
def test_which_factories_a_model_uses(kind: type, used: set[str]) -> None:
    assert factories.used_by(kind) == used


@pytest.mark.parametrize(
    "override", ["optimizer=sgd", "optimizer.lr=5", "+scheduler.x=1", "scheduler=cosine"]
)
def test_a_setting_that_would_be_ignored_is_refused(override: str) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(override)}: UsesNone does not use"):
        factories.check_overrides(UsesNone(), ["seed=1", "model.optimizer_name=x", override])
    factories.check_overrides(BaseModule(), [override])


@pytest.mark.parametrize(
    ("takes", "gives", "fits"),
    [(2, 2, True), (2, 3, False), (None, 3, True), (2, None, True), (None, None, True)],
)
def test_shapes_are_compared_where_both_sides_declare_them(
    takes: int | None, gives: int | None, fits: bool
) -> None:
    model, rows = PlainModel(), PlainData()
    for module, value in ((model, takes), (rows, gives)):
        if value is not None:
            module.in_features = value  # type: ignore[assignment]
    if fits:
        build.check_shapes(rows, model)
    else:
        with pytest.raises(InputError, match=r"takes in_features 2, .* gives 3"):
            build.check_shapes(rows, model)


class DrawnData(PlainData):
    """Rows drawn in the constructor, a split drawn in each `setup`, and a state that is fitted."""

    def __init__(self) -> None:
        super().__init__()
        rows = torch.randn(20, 3)
        self.rows, self.mean = TensorDataset(rows, rows.sum(1, keepdim=True)), 0.0

    def setup(self, stage: str) -> None:
        self.parts = random_split(self.rows, [15, 5])
        if stage == "fit":
            self.mean = float(self.rows.tensors[0][self.parts[0].indices].mean())

    def state_dict(self) -> dict[str, float]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean = state["mean"]

    def train_dataloader(self) -> Any:
        return DataLoader(self.parts[0], 5)

    def val_dataloader(self) -> Any:
        return DataLoader(self.parts[1], 5)

    test_dataloader = val_dataloader


class DrawnByItsOwn(DrawnData):
    """Draws with generators that it keeps, in a split and in the order of a test."""

    def __init__(self) -> None:
        super().__init__()
        self.generators: Any = [torch.Generator().manual_seed(5), np.random.default_rng(5)]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        row = int(self.generators[1].integers(10))
        self.parts = random_split(self.rows, [5 + row, 15 - row], generator=self.generators[0])

    def test_dataloader(self) -> Any:
        return DataLoader(self.parts[1], 3, sampler=RandomSampler(self.parts[1], num_samples=4))


@pytest.mark.parametrize("kind", [DrawnData, DrawnByItsOwn])
def test_random_splits_and_states_of_data_come_back_with_a_checkpoint(
    kind: type, plain: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = plain(PlainModel, data=kind)
    trained.trainer.fit(trained.model, datamodule=trained.data)
    split = trained.data.parts[1].indices
    [tested] = trained.trainer.test(trained.model, datamodule=trained.data, verbose=False)
    assert trained.data.parts[1].indices == split  # nothing that was trained on is tested
    settings, data, model = restored(tmp_path / "checkpoints" / "last.ckpt", monkeypatch)
    assert data.mean == trained.data.mean != 0.0
    tester = restore.build_tester(settings, "cpu", tmp_path)
    assert tester.test(model, datamodule=data, verbose=False) == [tested]
    other = plain(PlainModel, "seed=1", data=kind).data
    other.setup("fit")
    assert (other.parts[1].indices != split) == (kind is DrawnData)


class SetUp(LateLayers):
    """Makes its layer in `setup`, as wide as the rows."""

    def configure_model(self) -> None:
        pass

    def setup(self, stage: str) -> None:
        if self.layer is None:
            width = self.trainer.datamodule.rows.tensors[0].shape[1]  # type: ignore[attr-defined]
            self.layer = nn.Linear(width, 1)


def test_layers_that_are_made_in_setup_come_back_and_are_resumed(
    plain: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = plain(SetUp, data=DrawnData)
    trained.trainer.fit(trained.model, datamodule=trained.data)
    last = tmp_path / "checkpoints" / "last.ckpt"
    _, _, model = restored(last, monkeypatch)
    assert torch.equal(model.layer.weight, trained.model.layer.weight)
    longer, content = plain(SetUp, data=DrawnData), torch.load(last, weights_only=True)
    resume_fit.check_fit(last, content, longer.model, longer.trainer)  # does not refuse it


class OwnLoaders(PlainModel):
    """Brings its loaders itself."""

    train_dataloader = val_dataloader = PlainData.train_dataloader


def test_a_module_may_bring_its_loaders_itself(plain: Build) -> None:
    experiment = plain(OwnLoaders, "trainer.check_val_every_n_epoch=1", data=pl.LightningDataModule)
    assert has_stage(experiment.model, experiment.data, "val")
    assert not has_stage(experiment.model, experiment.data, "test")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert "val/loss" in experiment.trainer.callback_metrics
    assert hasattr(experiment.trainer.train_dataloader, "load_state_dict")


def test_a_constructor_without_arguments_saves_none_and_comes_back() -> None:
    class Nothing(BaseModule):
        def __init__(self, optimizer: Any = None, scheduler: Any = None) -> None:
            super().__init__(optimizer, scheduler)

    assert untrusted.arguments(Nothing, None, Path("last.ckpt")) == {}
    with pytest.raises(ValueError, match=r"^last.ckpt holds no arguments of a PlainModel"):
        untrusted.arguments(PlainModel, None, Path("last.ckpt"))


@pytest.mark.parametrize("finder", ["BatchSizeFinder", "LearningRateFinder"])
def test_a_finder_of_lightnings_is_announced_and_takes_one_step_per_call(
    finder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose("trainer.accelerator=cpu", "steps_per_execution=4", "logger=none")
    settings["callbacks"] |= {"own": {"_target_": f"lightning.pytorch.callbacks.{finder}"}}
    trainer: Any = build.build_trainer(settings, tmp_path)
    assert type(trainer.fit_loop.epoch_loop).__module__.startswith("lightning.")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {finder}: config.yaml does not show the value it finds")


def test_an_experiments_values_of_a_callback_are_left_with_callbacks_none(tmp_path: Path) -> None:
    settings = compose("trainer.accelerator=cpu", "callbacks=none", "logger=none")
    installed = len(build.build_trainer(settings, tmp_path).callbacks)  # type: ignore[attr-defined]
    settings["callbacks"] = {"checkpointing": {"every_n_epochs": 5}}
    trainer: Any = build.build_trainer(settings, tmp_path)
    assert len(trainer.callbacks) == installed
