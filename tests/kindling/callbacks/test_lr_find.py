"""debug=lr_find: rates rise as they should, the loss is watched, and some models are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from src.kindling.build import Experiment
from src.kindling.callbacks.lr_find import RangeTest, steepest
from src.kindling.errors import InputError


class Quadratic(pl.LightningModule):
    """The loss w^2, whose descent is known, with two parameter groups."""

    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        self.count, self.w = optimizers, nn.Parameter(torch.ones(()))
        self.other = nn.Parameter(torch.ones(()))
        self.seen: list[list[float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        self.seen.append([group["lr"] for group in optimizer.param_groups])
        return self.w.square() + 0 * self.other

    def configure_optimizers(self) -> Any:
        groups = [{"params": [self.w]}, {"params": [self.other], "lr": 0.2}]
        optimizer = torch.optim.SGD(groups, 0.1)
        others = [torch.optim.SGD([self.other], 0.1) for _ in range(self.count - 1)]
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return [optimizer, *others], [{"scheduler": plateau, "monitor": "val/x"}]


def fit(folder: Path, model: Quadratic, steps: int = 100) -> RangeTest:
    test = RangeTest(min_lr=1e-4, max_lr=100.0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=steps,
        # A range test has no validation, for whose metrics these wait.
        callbacks=[EarlyStopping("val/x"), test, ModelCheckpoint(monitor="val/x")],
        default_root_dir=str(folder),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(torch.zeros(7, 1))))
    return test


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers
def test_rates_grow_by_one_factor_until_the_loss_diverges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Quadratic()
    test = fit(tmp_path, model)
    first, second = np.array(model.seen).T
    assert np.allclose(second, 2 * first)  # the groups keep their proportion
    assert np.allclose(first[1:] / first[:-1], (100 / 1e-4) ** (1 / 99))
    assert first[0] == 1e-4
    # w is multiplied by 1 - 2 lr: it diverges above lr = 1, and falls fastest below.
    assert 1 < first[-1] < 100
    at = steepest(test.rates, test.losses)
    assert at is not None
    assert 1e-3 < test.rates[at] < 1
    said = capsys.readouterr().out
    assert f"try a learning rate of {test.rates[at]:.2g}," in said
    assert "does not validate: EarlyStopping (val/x), ModelCheckpoint (val/x)\n" in said
    assert (tmp_path / "figures" / "lr_find.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.filterwarnings("ignore")
def test_several_optimizers_and_few_steps_are_refused(tmp_path: Path) -> None:
    model = Quadratic(optimizers=2)
    model.automatic_optimization = False
    with pytest.raises(InputError, match="Quadratic steps several optimizers"):
        fit(tmp_path, model)
    with pytest.raises(InputError, match="max_steps=20: must be above 20"):
        fit(tmp_path, Quadratic(), steps=20)


def test_a_loss_that_never_falls_gives_no_suggestion() -> None:
    rates = [10.0**power for power in range(30)]
    assert steepest(rates, [1.0 + rate for rate in range(30)]) is None
    assert steepest(rates[:5], [1.0] * 5) is None


def test_the_yaml_finds_a_rate_for_a_model_of_the_project(
    build: Callable[..., Experiment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build("debug=lr_find", "logger=none")
    built.trainer.fit(built.model, datamodule=built.data)
    assert "lr_find: try optimizer.lr=" in capsys.readouterr().out
    assert (tmp_path / "figures" / "lr_find.png").is_file()
