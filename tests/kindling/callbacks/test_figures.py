"""Pictures are drawn as the model learns, and training never notices."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from src.kindling import callbacks
from src.kindling.build import Experiment
from src.kindling.callbacks.figures import Figures, pictures_of
from tests.kindling.conftest import options
from tests.kindling.examples.models.quadrants import Quadrants

pytest.importorskip("src.kindling.figures")  # optional
from src.kindling.figures.picture import Picture
from src.kindling.figures.view import ask, rows_of

Build = Callable[..., Experiment]
CLASSIFIED = {"confusion", "calibration", "precision_recall"}
VALUES = {"predicted_against_true", "residuals"}
EXPECTED = {"quadrants": CLASSIFIED, "line": VALUES, "teacher": VALUES}


def fitted(build: Build, *overrides: str, figures: Figures | None = None) -> Experiment:
    experiment = build("trainer.max_epochs=4", *overrides)
    if figures is not None:
        experiment.trainer.callbacks.append(figures)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return experiment


def read(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


@pytest.mark.parametrize("model", options("model"))
def test_training_is_the_same_with_and_without(
    model: str, build: Build, tmp_path: Path, capsys: Any
) -> None:
    few = (f"model={model}",)
    plain = fitted(build, *few, "logger=none")
    state = torch.get_rng_state()
    drawn = fitted(build, *few, "logger=tensorboard", figures=Figures(every_n_epochs=2))
    assert torch.equal(torch.get_rng_state(), state)
    for mine, theirs in zip(plain.model.parameters(), drawn.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert capsys.readouterr().err == ""
    check_pictures(model, tmp_path, steps=drawn.trainer.global_step)


def check_pictures(model: str, run: Path, steps: int) -> None:
    """Every picture is there at both times, and as a file that is the last one."""
    events = read(run)
    files = {path.stem for path in (run / "figures").iterdir()}
    assert files == EXPECTED[model]
    assert set(events.Tags()["images"]) == {f"views/{name}" for name in files}
    for name in files:
        points = events.Images(f"views/{name}")
        assert [point.step for point in points] == [steps // 2 - 1, steps - 1]
        png = (run / "figures" / f"{name}.png").read_bytes()
        assert points[-1].encoded_image_string == png
        assert Image.open(io.BytesIO(png)).size == (points[-1].width, points[-1].height)


def test_weights_gradients_and_curves_are_written_at_the_same_steps(
    build: Build, tmp_path: Path
) -> None:
    # Each second epoch is validated, which clears the gradients: they are counted before.
    few = ("trainer.check_val_every_n_epoch=2", "logger=tensorboard")
    experiment = fitted(build, *few, figures=Figures(every_n_epochs=2))
    events = read(tmp_path)
    names = [name for name, _ in experiment.model.named_parameters()]
    expected = {f"weights/{name}{kind}" for kind in ("", ".gradient") for name in names}
    assert set(events.Tags()["histograms"]) == expected
    last = events.Histograms("weights/net.hidden.weight")[-1]
    assert last.step == experiment.trainer.global_step - 1 == 15
    weights = experiment.model.net.hidden.weight.detach().numpy()
    value = last.histogram_value
    assert value.num == weights.size
    assert (value.min, value.max) == pytest.approx((weights.min(), weights.max()))
    assert value.sum == pytest.approx(weights.sum(dtype=float), rel=1e-4)
    curves = set(events.PluginTagToContent("pr_curves"))
    assert curves == {f"precision_recall/{n}" for n in ("neither", "left", "below", "both")}
    assert [p.step for p in events.Tensors("precision_recall/left")] == [7, 15]


def test_without_a_tensorboard_there_are_files_alone(build: Build, tmp_path: Path) -> None:
    fitted(build, "model=line", "logger=csv", figures=Figures())
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == VALUES
    assert not (tmp_path / "tensorboard").exists()


def test_a_fast_development_run_draws_nothing(build: Build, tmp_path: Path) -> None:
    fitted(build, "trainer.fast_dev_run=1", figures=Figures())
    assert not (tmp_path / "figures").exists()


class Epochs(Callback):
    """Note after which epochs there are pictures that were not there before."""

    def __init__(self, run: Path) -> None:
        self.folder, self.seen = run / "figures", b""
        self.drawn: list[int] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        file = self.folder / "residuals.png"
        if file.exists() and file.read_bytes() != self.seen:
            self.seen = file.read_bytes()
            self.drawn.append(trainer.current_epoch + 1)


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [(8, None, [8]), (8, 4, [4, 8]), (7, 3, [3, 6, 7]), (5, 9, [5])],
)
def test_it_is_drawn_every_few_epochs_and_at_the_end(
    epochs: int, every: int | None, expected: list[int], build: Build, tmp_path: Path
) -> None:
    experiment = build("model=line", "logger=none", f"trainer.max_epochs={epochs}")
    noted = Epochs(tmp_path)
    experiment.trainer.callbacks += [Figures(every), noted]
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert noted.drawn == expected


class Broken(Picture):
    name = "broken"
    description = "what cannot be drawn"

    def draw(self, axes: Any, view: Any) -> None:
        raise RuntimeError("no such color\nand a long story")


def test_a_picture_that_fails_costs_one_line_and_no_training(
    build: Build, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from src.kindling.figures import regression as own

    good = own.pictures
    monkeypatch.setattr(own, "pictures", lambda model: [Broken(), *good(model)])
    few = ("model=line", "logger=none")
    experiment = fitted(build, *few, figures=Figures(every_n_epochs=1))
    assert capsys.readouterr().err == "warning: figure broken left out: no such color\n"
    assert experiment.trainer.global_step == 4
    assert (tmp_path / "figures" / "residuals.png").exists()


def test_outputs_that_are_not_finite_cost_one_line(build: Build, capsys: Any) -> None:
    experiment = build("model=line", "logger=none", "trainer.max_epochs=2")
    figures = Figures()
    figures._pictures = pictures_of(experiment.model)
    batch = (torch.full((3, 2), float("nan")), torch.zeros(3, 1))
    trainer = SimpleNamespace(global_step=4, datamodule=experiment.data)
    figures._draw(trainer, experiment.model, "val", batch)
    line = "warning: no more figures: the model's outputs are NaN or infinite at step 4\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("model", ["line", "quadrants"])
def test_a_resumed_run_draws_the_same_bytes(model: str, build: Build, tmp_path: Path) -> None:
    def drawn(epochs: int, checkpoint: str | None = None) -> dict[str, bytes]:
        few = (f"model={model}", "logger=none", "scheduler=constant")
        experiment = build(*few, f"trainer.max_epochs={epochs}")
        experiment.trainer.callbacks.append(Figures(every_n_epochs=2))
        experiment.trainer.fit(
            experiment.model, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=True
        )
        return {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}

    first, whole = drawn(2), drawn(4)
    assert len(whole) == len(EXPECTED[model])
    assert all(whole[name] != first[name] for name in whole)
    drawn(2)
    assert drawn(4, str(tmp_path / "checkpoints" / "last.ckpt")) == whole


# Any model, any data ------------------------------------------------------------------------------


class Measure(Quadrants):
    """A model that says it predicts values."""

    target = "value"


def test_a_model_without_pictures_of_its_own_gets_those_of_its_target() -> None:
    names = {picture.name for picture in pictures_of(Quadrants())}
    assert names == CLASSIFIED
    assert {p.name for p in pictures_of(Measure())} == VALUES
    assert pictures_of(nn.Linear(1, 1)) == []


def test_rows_come_from_the_first_batch_where_the_data_has_loaders_alone() -> None:
    pair = [torch.zeros(3, 2), torch.ones(3, 1)]
    for batch in (pair, tuple(pair), [pair, pair], [tuple(pair), tuple(pair)]):
        rows = rows_of(batch)
        assert rows is not None
        assert torch.equal(rows[0], pair[0])
        assert torch.equal(rows[1], pair[1])
    for other in ({"x": pair[0]}, pair[0], [], [pair[0], pair[1], pair[0]], ["text", "text"]):
        assert rows_of(other) is None


def test_few_rows_of_large_inputs_are_looked_at() -> None:
    images = torch.zeros(1, 1).expand(64, 3, 224, 224)
    rows = rows_of((images, torch.zeros(64)))
    assert rows is not None
    assert len(rows[0]) == len(rows[1]) == 27


def test_asking_draws_no_number_and_leaves_every_mode() -> None:
    noisy = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    noisy[1].eval()
    before = {name: value.clone() for name, value in noisy.state_dict().items()}
    state, python = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again = (ask(noisy, torch.ones(4, 3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not first.requires_grad
    assert [part.training for part in noisy] == [True, False, True]
    assert all(torch.equal(before[name], v) for name, v in noisy.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], python)


class Guest(pl.LightningModule):
    """A module that derives from nothing of ours."""

    def __init__(self, net: nn.Module, target: str | None = None) -> None:
        super().__init__()
        self.net = net
        if target:
            self.target = target

    def forward(self, inputs: Any) -> Any:
        return self.net(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return sum(weights.square().sum() for weights in self.parameters())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Validate nothing."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def images() -> list[Any]:
    return [(torch.rand(3, 8, 8), torch.tensor(i % 4)) for i in range(12)]


def tokens() -> list[Any]:
    return [(torch.arange(5), torch.tensor([1, 2, 3, 4, -100])) for _ in range(12)]


def network(batch: str) -> nn.Module:
    if batch == "tokens":
        return nn.Sequential(nn.Embedding(6, 8), nn.Linear(8, 6))
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize(
    ("batch", "target", "expected"),
    [
        ("images", "class", CLASSIFIED),
        ("tokens", "class", CLASSIFIED),
        ("images", "value", set()),  # classes are not values
        ("images", None, set()),
        ("dictionary", "class", set()),
    ],
)
def test_any_model_with_loaders_alone_is_drawn_or_left_alone_without_a_word(
    batch: str, target: str | None, expected: set[str], validated: bool, tmp_path: Path, capsys: Any
) -> None:
    rows = tokens() if batch == "tokens" else images()
    if batch == "dictionary":
        rows = [{"image": image, "label": label} for image, label in rows]
    loader: Any = DataLoader(rows, batch_size=6)
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, callbacks=[Figures()], accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, about the loader's workers
        trainer.fit(Guest(network(batch), target), loader, loader if validated else None)
    assert capsys.readouterr().err == ""
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == expected


def test_without_its_room_there_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_there(module: str) -> bool:
        return not module.startswith("src.kindling.figures")

    assert pictures_of(Quadrants())
    monkeypatch.setattr(callbacks.figures, "_is_there", is_there)
    assert pictures_of(Quadrants()) == []
