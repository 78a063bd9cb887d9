"""How a run ends on the console: its metrics side by side, and what to type next."""

from pathlib import Path

from src.kindling import layout
from src.kindling.training import summary
from tests.conftest import has_command


def test_each_stage_has_a_column_test_first_with_its_loss_on_top() -> None:
    values = {"test/accuracy": 0.5, "test/loss": 3.5, "train/loss": 1.0, "val/loss": 20.0}
    expected = [
        "  test/loss      3.5    val/loss  20    train/loss  1",
        "  test/accuracy  0.5",
    ]
    assert summary.table(values).splitlines() == expected
    health = {"train/lr": 1e-08, "train/gradient_norm": 0.25, "train/momentum": 0.9}
    assert summary.table(values | health).splitlines() == expected


def test_metrics_of_a_users_own_are_shown_under_their_full_names() -> None:
    values = {"train/loss": 1.0, "train/skipped_steps": 2.0, "gan/critic": 0.25, "fid": 7.0}
    assert summary.table(values).splitlines() == [
        "  train/loss           1    fid  7    gan/critic  0.25",
        "  train/skipped_steps  2",
    ]


def test_a_stage_without_metrics_has_no_column() -> None:
    assert summary.table({"train/loss": 1.0, "train/a": 0.25}) == (
        "  train/loss     1\n  train/a     0.25"
    )
    assert summary.table({"test/loss": 0.1}) == "  test/loss  0.1"
    assert summary.table({}) == ""


def test_what_to_type_next_is_quoted_and_leaves_out_what_there_is_not(tmp_path: Path) -> None:
    run = tmp_path / "my logs" / "train" / "fizzbuzz" / "a"
    with layout.added_folders([]):
        said = summary.next_steps(run, {"trainer.max_epochs": "50"})
    report = [f"python -m src.report 'run=\"{run}\"'"] if has_command("report") else []
    assert said == report
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / "tensorboard").mkdir()
    with layout.added_folders([]):
        said = summary.next_steps(run, {"trainer.max_epochs": "50"})
        finished = summary.next_steps(run, {})
    assert said == [
        f"python -m src.predict 'run=\"{run}\"'",
        *report,
        f"python -m src.train 'resume=\"{run}\"' trainer.max_epochs=50",
        f"tensorboard --logdir '{tmp_path}/my logs/train'",
    ]
    assert finished == [line for line in said if "resume=" not in line]
