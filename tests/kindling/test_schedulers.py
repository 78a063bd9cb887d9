"""Each learning-rate schedule against its formula, over a whole run."""

import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from src.kindling import schedulers

FOLDER = Path(__file__).parents[2] / "conf" / "scheduler"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "constant")
LENGTHS = [1, 2, 7, 400]
LR = 0.1


def optimizer_of(*lrs):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups)


def run(schedule, total_steps, lrs=(LR,), **options):
    """The learning rates [steps][groups] with which the steps of a run are taken."""
    optimizer = optimizer_of(*lrs)
    scheduler = schedule(optimizer, total_steps, **options)
    used = []
    for _ in range(total_steps):
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return used


def rates(schedule, total_steps, **options):
    """The same for one group, flat."""
    return [lr for (lr,) in run(schedule, total_steps, **options)]


def at_end(schedule, total_steps, **options):
    """The schedule after the end of its run."""

    def continued(optimizer, _):
        scheduler = schedule(optimizer, total_steps, **options)
        for _ in range(total_steps):
            optimizer.step()
            scheduler.step()
        return scheduler

    return continued


def configured(file):
    """The schedule that a YAML of conf/scheduler/ names, and its settings."""
    options = yaml.safe_load(file.read_text())
    name = options.pop("_target_").removeprefix("src.kindling.schedulers.")
    assert options.pop("_partial_") is True
    options = {k: float(v) if isinstance(v, str) else v for k, v in options.items()}  # 1e4
    return getattr(schedulers, name), options


def test_conf_offers_schedules():
    assert FILES


@pytest.mark.parametrize("total_steps", LENGTHS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_step_has_a_finite_and_positive_learning_rate(file, total_steps):
    schedule, options = configured(file)
    optimizer = optimizer_of(LR, LR / 10)
    scheduler = schedule(optimizer, total_steps, **options)
    for _ in range(total_steps):
        for group, peak in zip(optimizer.param_groups, (LR, LR / 10), strict=True):
            assert math.isfinite(group["lr"])
            assert 0 < group["lr"] <= peak * (1 + 1e-9)
        optimizer.step()
        scheduler.step(*([1.0] if file.stem == "plateau" else []))


@pytest.mark.parametrize(("every", "gamma"), [(0.25, 0.5), (0.1, 0.9), (0.5, 0.1)])
@pytest.mark.parametrize("total_steps", LENGTHS)
def test_step_multiplies_by_gamma_after_each_share_of_the_run(total_steps, every, gamma):
    size = max(1, round(total_steps * every))
    expected = [LR * gamma ** (step // size) for step in range(total_steps)]
    assert rates(schedulers.step, total_steps, every=every, gamma=gamma) == pytest.approx(expected)


def test_step_halves_at_each_quarter_by_default():
    assert rates(schedulers.step, 8) == pytest.approx(
        [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]
    )


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("total_steps", LENGTHS)
def test_cosine_falls_to_its_final_share_along_half_a_cosine(total_steps, final):
    expected = [
        LR * (final + (1 - final) * (1 + math.cos(math.pi * step / total_steps)) / 2)
        for step in range(total_steps)
    ]
    used = rates(schedulers.cosine, total_steps, final=final)
    assert used == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_cosine_has_the_values_of_torchs_own():
    expected = rates(
        lambda optimizer, steps: CosineAnnealingLR(optimizer, steps, eta_min=0.2 * LR), 50
    )
    assert rates(schedulers.cosine, 50, final=0.2) == pytest.approx(expected)


def test_cosine_reaches_its_final_share_when_the_run_is_over_and_stays_there():
    assert rates(at_end(schedulers.cosine, 10, final=0.2), 3) == pytest.approx([LR / 5] * 3)


def one_cycle_formula(step, total_steps, pct_start, div_factor, final_div_factor):
    """Half a cosine up to LR at pct_start of the run, half a cosine down to its last step."""
    start, end = LR / div_factor, LR / div_factor / final_div_factor
    peak = pct_start * total_steps - 1
    low, high, share = (
        (start, LR, step / peak)
        if step <= peak
        else (end, LR, 1 - (step - peak) / (total_steps - 1 - peak))
    )
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    "options",
    [
        {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
        {"pct_start": 0.75, "div_factor": 4.0, "final_div_factor": 10.0},
    ],
)
@pytest.mark.parametrize("total_steps", [7, 40, 400])
def test_one_cycle_follows_its_two_cosines(total_steps, options):
    expected = [one_cycle_formula(step, total_steps, **options) for step in range(total_steps)]
    assert rates(schedulers.one_cycle, total_steps, **options) == pytest.approx(expected)


def test_one_cycle_starts_low_peaks_at_pct_start_and_ends_at_almost_none():
    used = rates(
        schedulers.one_cycle, 400, pct_start=0.25, div_factor=20.0, final_div_factor=1000.0
    )
    assert used[0] == pytest.approx(LR / 20)
    assert used.index(max(used)) == 0.25 * 400 - 1
    assert max(used) == pytest.approx(LR)
    assert used[-1] == pytest.approx(LR / 20 / 1000)
    assert used[:100] == sorted(used[:100])
    assert used[99:] == sorted(used[99:], reverse=True)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    total_steps=st.integers(1, 30),
    pct_start=st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.75, 0.9]),
)
def test_one_cycle_takes_any_share_of_a_run_of_any_length(total_steps, pct_start):
    used = rates(schedulers.one_cycle, total_steps, pct_start=pct_start)
    assert all(0 < lr <= LR * (1 + 1e-9) for lr in used)


@pytest.mark.parametrize("total_steps", [7, 40, 400])
def test_one_cycle_has_the_values_of_torchs_own(total_steps):
    expected = rates(
        lambda optimizer, steps: OneCycleLR(optimizer, LR, steps, cycle_momentum=False), total_steps
    )
    assert rates(schedulers.one_cycle, total_steps) == pytest.approx(expected)


def test_one_cycle_stays_at_almost_none_when_the_run_is_over():
    used = rates(at_end(schedulers.one_cycle, 10), 3)
    assert used == pytest.approx([LR / 25 / 1e4] * 3)


def test_one_cycle_leaves_the_momentum_alone():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.77)
    scheduler = schedulers.one_cycle(optimizer, 10)
    for _ in range(10):
        assert optimizer.param_groups[0]["momentum"] == 0.77
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["step", "cosine", "one_cycle"])
def test_each_group_keeps_its_share_of_the_learning_rate(name):
    for first, second in run(getattr(schedulers, name), 20, lrs=(1.0, 0.01)):
        assert second == pytest.approx(0.01 * first)


@pytest.mark.parametrize("name", ["step", "cosine", "one_cycle"])
def test_a_run_made_longer_continues_at_its_place_in_the_longer_schedule(name):
    schedule = getattr(schedulers, name)
    first = optimizer_of(LR)
    short = schedule(first, 10)
    for _ in range(6):
        first.step()
        short.step()
    second = optimizer_of(LR)
    long = schedule(second, 40)
    second.load_state_dict(first.state_dict())
    long.load_state_dict(short.state_dict())
    second.step()
    long.step()
    assert second.param_groups[0]["lr"] == pytest.approx(rates(schedule, 40)[7])


def plateau_rates(losses, **options):
    """The learning rate after each validation."""
    optimizer = optimizer_of(LR)
    scheduler = schedulers.plateau(optimizer, len(losses), **options)
    used = []
    for loss in losses:
        optimizer.step()
        scheduler.step(loss)
        used.append(optimizer.param_groups[0]["lr"])
    return used


@pytest.mark.parametrize("patience", [0, 1, 10])
def test_plateau_cuts_when_patience_is_over(patience):
    used = plateau_rates([1.0] * (patience + 2), factor=0.5, patience=patience)
    assert used == pytest.approx([LR] * (patience + 1) + [LR / 2])


def test_plateau_leaves_a_falling_loss_alone():
    assert plateau_rates([1 / (n + 1) for n in range(50)], patience=0) == [LR] * 50


def test_plateau_starts_counting_anew_at_each_fall():
    losses = [5, 5, 5, 4, 4, 4, 3, 3, 3, 3]  # the third repetition of 3 is one too many
    used = plateau_rates([float(loss) for loss in losses], factor=0.1, patience=2)
    assert used == pytest.approx([LR] * 9 + [LR / 10])


def test_constant_is_no_schedule_and_keeps_the_learning_rate(build):
    experiment = build("model=line", "scheduler=constant", "trainer.max_epochs=3")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert experiment.trainer.lr_scheduler_configs == []
    [optimizer] = experiment.trainer.optimizers
    assert optimizer.param_groups[0]["lr"] == experiment.config["optimizer"]["lr"]


class Seen(pl.Callback):
    """What torch's own schedule would be stepped with by hand, and the rates that training used."""

    def __init__(self, metric):
        self.metric, self.events = metric, []

    def on_validation_end(self, trainer, pl_module):
        if self.metric == "val/loss" and not trainer.sanity_checking:
            self.events.append(float(trainer.callback_metrics["val/loss"]))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.events.append([optimizer.param_groups[0]["lr"]])

    def points(self, metrics, step):
        if self.metric == "train/loss" and "train/loss" in metrics:
            self.events.append(metrics["train/loss"])


def by_hand(events, factor, patience):
    """The same events, with the rates of torch's own schedule."""
    optimizer = optimizer_of(events[0][0])
    scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
    expected = []
    for event in events:
        if isinstance(event, float):
            scheduler.step(event)
        expected.append(event if isinstance(event, float) else [optimizer.param_groups[0]["lr"]])
    return expected


# batches per epoch: 9
@pytest.mark.parametrize("steps", [1, 50])
@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["val_check_interval=0.25"], 24),
        (["val_check_interval=4", "num_sanity_val_steps=2"], 12),
        (["check_val_every_n_epoch=2"], 3),
        (["check_val_every_n_epoch=2", "val_check_interval=3"], 9),
        (["check_val_every_n_epoch=null", "val_check_interval=13"], 4),
        (["limit_val_batches=0", "log_every_n_steps=7"], 8),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_plateau_counts_each_validation_once(words, count, steps, build):
    experiment = build(
        *("model=quadrants", "data.batch_size=100", "scheduler=plateau", "logger=csv"),
        *("scheduler.factor=0.5", "scheduler.patience=0", "optimizer.lr=0.5"),
        *("trainer.max_epochs=6", "trainer.check_val_every_n_epoch=1"),
        *(f"trainer.{word}" for word in words),
        f"steps_per_execution={steps}",
    )
    seen = Seen("train/loss" if "limit_val_batches=0" in words else "val/loss")
    experiment.trainer.callbacks.append(seen)
    experiment.trainer.logger.log_metrics = seen.points
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    values = [event for event in seen.events if isinstance(event, float)]
    assert len(values) == count
    assert seen.events == by_hand(seen.events, factor=0.5, patience=0)
    assert len({lr for [lr] in (e for e in seen.events if not isinstance(e, float))}) > 1
