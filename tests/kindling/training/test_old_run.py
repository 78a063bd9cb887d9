"""Runs that an older version wrote (commit d7e87d8) are resumed, tested, asked, and compared."""

import json
import shutil
from pathlib import Path

import pytest

from src.kindling.files.checkpoint import load_checkpoint
from tests.conftest import ROOT, Command, has_command

OLD = Path(__file__).parent / "old_run"
MODELS = sorted(path.name for path in OLD.iterdir())
GONE = [model for model in MODELS if not (ROOT / "src" / "models" / f"{model}.py").is_file()]
pytestmark = pytest.mark.skipif(bool(GONE), reason=f"deleted from src/models/: {', '.join(GONE)}")


@pytest.fixture
def old(command: Command) -> Path:
    """Copies of the old runs, where training runs are kept."""
    for model in MODELS:
        shutil.copytree(OLD / model, command.log_dir / "train" / model / "old")
    return command.log_dir / "train"


@pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced")  # by a newer Lightning
@pytest.mark.parametrize("model", MODELS)
def test_an_old_run_is_resumed_with_todays_targets(model: str, old: Path, command: Command) -> None:
    run = old / model / "old"
    out = command.here("train", f"resume={run}", "trainer.max_epochs=3")
    assert f"{model}: continuing in {run}" in out
    last = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert last["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == 3
    targets = [node["_target_"] for node in last["config"]["callbacks"].values()]
    assert targets
    assert all(target.startswith(("src.kindling.", "lightning.")) for target in targets)
    assert len(json.loads((run / "run.json").read_text())["earlier"]) == 1


@pytest.mark.parametrize("model", MODELS)
def test_an_old_run_is_tested_with_the_same_result_and_answers(
    model: str, old: Path, command: Command
) -> None:
    run = old / model / "old"
    command.here("evaluate", f"run={run}", "accelerator=cpu")
    [tested] = (command.log_dir / "evaluate" / model).iterdir()
    before, after = (json.loads((p / "metrics.json").read_text()) for p in (run, tested))
    assert after == pytest.approx({name: before[name] for name in after}, rel=1e-5)
    assert command.here("predict", f"run={run}")


@pytest.mark.skipif(not has_command("compare"), reason="src/kindling/results was deleted")
def test_old_runs_are_compared(old: Path, command: Command) -> None:
    shutil.copytree(old / "fizzbuzz" / "old", old / "fizzbuzz" / "other")
    out = command.here("compare", str(old))
    assert "fizzbuzz" in out
    assert "linear_regression" in out
