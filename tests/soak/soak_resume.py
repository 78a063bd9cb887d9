"""Kill -9 at random instants, several generations deep: each run ends as if nothing had happened.

python -m pytest ... -k resume, by `make soak`; KILLS=1000 sets how many kills there are in all.
"""

import itertools
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from src.kindling.files.checkpoint import AtomicCheckpointIO, load_checkpoint
from tests.kills import Chain, in_this_process, in_two_workers, unlike

KILLS = int(os.environ.get("KILLS", "240"))
FLIPS = int(os.environ.get("FLIPS", "4000"))

SMALL = {
    "quadrants": [
        "model.hidden_features=32",
        "model.dropout=0.2",
        "trainer.max_epochs=60",
        "trainer.check_val_every_n_epoch=4",
    ],
    "line": [
        "data.batch_size=20",
        "data.shuffle=true",
        "trainer.max_epochs=60",
        "trainer.check_val_every_n_epoch=3",
    ],
    "teacher": [
        "model.dropout=0.1",
        "data.rows=400",
        "data.in_features=20",
        "optimizer.lr=0.01",
        "data.val_rows=50",
        "trainer.max_epochs=25",
    ],
}
SCHEDULES = {
    "step": ["scheduler=step"],
    "one_cycle": ["scheduler=one_cycle"],
    "plateau": ["scheduler=plateau", "scheduler.patience=1"],
}
EXTRAS = {
    "": [],
    "early stopping": ["callbacks=early_stopping", "callbacks.early_stopping.patience=6"],
    "accumulation, validation inside it": [
        "steps_per_execution=1",
        "trainer.accumulate_grad_batches=2",
        "trainer.check_val_every_n_epoch=1",
        "trainer.val_check_interval=3",
    ],
    "bf16-mixed": ["trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=3"],
}


def cases():
    """Every model, optimizer and schedule, with steps an execution and the extras in turn."""
    crossed = itertools.product(SMALL, ("sgd", "adam"), SCHEDULES)
    extras = itertools.cycle(EXTRAS)
    for steps, (model, optimizer, schedule) in zip(itertools.cycle((1, 2, 12)), crossed):
        extra = next(extras)
        words = [f"model={model}", *SMALL[model], f"optimizer={optimizer}", *SCHEDULES[schedule]]
        seldom = 30 if steps > 4 else 7  # else no execution is of several epochs
        words += [f"trainer.log_every_n_steps={seldom}", f"steps_per_execution={steps}"]
        words = {word.partition("=")[0]: word for word in [*words, *EXTRAS[extra]]}
        yield ", ".join(filter(None, (model, optimizer, schedule, extra))), [*words.values()], None
    own = [
        "model=quadrants",
        "model.hidden_features=32",
        "steps_per_execution=1",
    ]
    own += ["trainer.max_epochs=12", "trainer.check_val_every_n_epoch=1"]
    own += ["trainer.val_check_interval=3", "trainer.log_every_n_steps=7"]
    yield "an own DataLoader", own, in_this_process
    yield "an own DataLoader with two workers", own, in_two_workers


CASES = list(cases())
CHAINS: list[Chain] = []


@pytest.mark.parametrize(("name", "words", "first"), CASES, ids=[name for name, _, _ in CASES])
def soak_kills(name, words, first, tmp_path):
    """Weights, optimizer, schedule, counters, best checkpoint and history are the same bits."""
    start = time.monotonic()
    chain = Chain(tmp_path, tuple(words), seed=len(CHAINS), first=first)
    found = chain.run(-(-KILLS // len(CASES)))
    CHAINS.append(chain)
    print(
        f"\n{name} ({' '.join(w for w in words if 'steps_per' in w)}): {chain.kills} kills, of"
        f" which {chain.while_saving} while saving, {chain.deepest} deep;"
        f" {'NOT ' if found else ''}identical; {time.monotonic() - start:.0f} s",
        flush=True,
    )
    assert found == []


def soak_kills_are_counted():
    """Print the sum."""
    kills, saving = (sum(getattr(c, name) for c in CHAINS) for name in ("kills", "while_saving"))
    deep = max((chain.deepest for chain in CHAINS), default=0)
    print(
        f"\nin all: {kills} kills, {saving} while saving, up to {deep} deep, {len(CHAINS)} chains"
    )
    assert not CHAINS or len(CHAINS) < len(CASES) or kills >= KILLS


def soak_flipped_bits(tmp_path):
    """Each flipped bit of a checkpoint is detected, or changes nothing that is read."""
    path = tmp_path / "last.ckpt"
    weights = {f"net.{n}.weight": torch.randn(8, 8) for n in range(4)}
    content = {"state_dict": weights, "epoch": 3, "config": {"seed": 1, "name": "a" * 40}}
    AtomicCheckpointIO().save_checkpoint(content, path)
    found = flipped(path, random.Random(0).sample(range(path.stat().st_size * 8), FLIPS))
    print(f"\n{FLIPS} flips: {found['detected']} detected, {found['harmless']} harmless")
    assert found["harmful"] == 0


def flipped(path: Path, bits: list[int]) -> Counter[str]:
    """Flip each of these bits by itself, and count what comes of it."""
    whole, content, found = path.read_bytes(), load_checkpoint(path), Counter()
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read = load_checkpoint(path)
        except ValueError:
            found["detected"] += 1
        else:
            found["harmful" if list(unlike(content, read, "")) else "harmless"] += 1
    path.write_bytes(whole)
    return found
