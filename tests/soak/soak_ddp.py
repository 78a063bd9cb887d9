"""Two processes, killed, stopped and signalled: no rank waits for another, or is left over."""

import os
import random
import signal
import time
from pathlib import Path

from tests.forked import Forked
from tests.kills import differences
from tests.kindling.process.test_ddp import PAIR, exists, train
from tests.kindling.process.test_signals import LONG, STATUS
from tests.soak.soak_signals import has_finished

SHORT = ("trainer.max_epochs=60", "callbacks.progress.seconds_per_line=0.001")


def soak_ranks_killed_and_stopped(tmp_path: Path) -> None:
    instants = random.Random(0)
    for number, timeout in ((signal.SIGKILL, 300), (signal.SIGSTOP, 3)):
        for which in (0, 1):
            took = []
            for count in range(6):
                folder = tmp_path / f"{number.name}{which}{count}"
                forked, rank = train(folder, f"trainer.strategy.timeout={timeout}")
                time.sleep(instants.uniform(0, 1))
                start = time.monotonic()
                os.kill((forked.pid, rank)[which], number)
                status = forked.wait(60)
                while exists(rank):
                    assert time.monotonic() < start + 60
                    time.sleep(0.01)
                took.append(time.monotonic() - start)
                assert status != 0
                assert forked.err.count("\n") == (status > 0), forked.err
            print(
                f"\n{number.name} to rank {which}: 6 runs ended, at most {max(took):.1f} s", end=""
            )
            assert max(took) < (10 if number == signal.SIGKILL else 3 + 10)


def soak_signals_to_both_or_one_and_the_same_bits(tmp_path: Path) -> None:
    straight = Forked(tmp_path / "straight", *LONG, *PAIR, *SHORT, ranks=2)
    assert straight.wait(300) == 0
    instants, sent, slowest, count = random.Random(1), 0, 0.0, 0
    while sent < 12:
        count += 1
        words, ended = (*LONG, *PAIR, *SHORT), False
        while not ended:
            forked = Forked(tmp_path / f"stopped{count}", *words, ranks=2)
            words = ("train", "resume=latest")
            forked.wait_until(lambda f=forked: "step " in f.out or f.process.poll() is not None)
            time.sleep(instants.uniform(0, 0.5))
            number = instants.choice([number for number, _ in STATUS])
            ranks = [forked.pid, *forked.children()] if forked.process.poll() is None else []
            for pid in instants.choice([ranks, ranks[:1], ranks[1:]]):
                if exists(pid):
                    os.kill(pid, number)
            start = time.monotonic()
            status = forked.wait(60)
            ended = has_finished(forked.run)
            if not ended:
                assert status == dict(STATUS)[number], (status, forked.out[-300:], forked.err)
                assert forked.out.count("to continue:") == 1
                assert not any(exists(pid) for pid in ranks)
                sent, slowest = sent + 1, max(slowest, time.monotonic() - start)
        assert list(differences(straight.run, forked.run)) == []
    print(f"\n{sent} signals, {count} runs with the same bits, at most {slowest:.1f} s")
    assert slowest < 5
