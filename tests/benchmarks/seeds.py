"""How many numbers of FizzBuzz a recipe gets right, per seed.

python -m tests.benchmarks.seeds 100
python -m tests.benchmarks.seeds 20 data.train_fraction=0.5
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import hydra
import torch

from src.data.fizzbuzz import GAME, encode, fizzbuzz
from src.kindling import build, layout, restore
from src.kindling.cli import composition
from src.kindling.config.hydra_calls import BASE


def played(overrides: list[str], seed: int, folder: Path) -> tuple[int, float]:
    """Train with a seed; return how many of 1..100 the best checkpoint gets right and the time."""
    with hydra.initialize_config_dir(str(layout.CONF), **BASE):
        fixed = ["trainer.accelerator=cpu", f"log_dir={folder}", f"seed={seed}"]
        settings = composition.resolved(hydra.compose("train", [*fixed, *overrides]))
    settings["callbacks"].pop("progress")
    built = build.build(settings, folder / str(seed))
    start = time.perf_counter()
    built.trainer.fit(built.model, datamodule=built.data)
    seconds = time.perf_counter() - start
    _, _, model = restore.load(folder / str(seed) / "checkpoints" / "best.ckpt")
    numbers = torch.tensor(GAME)
    with torch.inference_mode():
        answers = model.predict_step(encode(numbers, built.data.num_digits))
    return int((answers == fizzbuzz(numbers)).sum()), seconds


def main() -> None:
    """Print the distribution over the seeds 0 .. n - 1, and the training time."""
    seeds, overrides = int(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        results = [played(overrides, seed, Path(folder)) for seed in range(seeds)]
    right = [count for count, _ in results]
    seconds = sorted(taken for _, taken in results)
    print(f"{' '.join(overrides) or 'default'}, seeds 0..{seeds - 1}")
    print(f"all right: {right.count(100)} of {seeds} seeds; mean {sum(right) / seeds:.2f}")
    print("right: seeds ", dict(sorted(Counter(right).items(), reverse=True)))
    print(f"training: median {seconds[seeds // 2]:.2f} s, longest {seconds[-1]:.2f} s")


if __name__ == "__main__":
    main()
