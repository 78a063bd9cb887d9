"""A run that begins with the weights of another, killed before its first checkpoint."""

import json
import shutil

from tests.conftest import Command
from tests.kills import differences

SHORT = ("model=line", "trainer.accelerator=cpu", "trainer.max_epochs=20")


def test_it_starts_again_from_the_same_weights_and_says_so(command: Command) -> None:
    command.here("train", *SHORT)
    first = command.latest
    command.here("train", *SHORT, "init_from=latest")
    whole = command.latest
    killed = whole.with_name("killed")
    shutil.copytree(whole, killed, ignore=shutil.ignore_patterns("checkpoints", "metrics.json"))
    record = json.loads((killed / "run.json").read_text()) | {"status": "running", "end": None}
    del record["init_from"]
    (killed / "run.json").write_text(json.dumps(record))
    said = command.here("train", f"resume={killed}")
    line = f"init_from: 1 of 1 tensors taken from {first}/checkpoints/best.ckpt"
    assert json.loads((killed / "run.json").read_text())["init_from"] == line
    assert line in said
    assert "has no checkpoint yet: it starts from its first step" in said
    assert list(differences(whole, killed)) == []
