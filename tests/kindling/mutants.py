"""make mutants: break the engine in one place at a time; the tests of that place must fail.

ARGS="comparison resume" runs the mutations of files whose names contain one of these words. Each
mutation is made in a copy of the project. Exit status 1: a mutant survived, or a mutation no longer
applies because its text has changed.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tests.conftest import ROOT, environment

WORKERS = 2
TIMEOUT = 300  # seconds; a mutant that hangs is killed
IGNORED = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "logs", "*.egg-info")
R, T = "src/kindling/results", "tests/kindling/results"


@dataclass(frozen=True)
class Mutation:
    """A change that a test must notice.

    Args:
        file: the file to change, relative to the project.
        old: the text to replace, which occurs exactly once.
        new: its replacement.
        tests: the files to run, and after ` -k ` the names of the tests to run.
    """

    file: str
    old: str
    new: str
    tests: str


def _of(file: str, tests: str, *changes: tuple[str, str]) -> Iterator[Mutation]:
    return (Mutation(file, old, new, tests) for old, new in changes)


MUTATIONS = [
    *_of(
        f"{R}/significance.py",
        f"{T}/test_significance.py",
        ("of_b**2 / (len(second) - 1)", "of_b**2 / (len(first) - 1)"),
        ("np.float64(sd_b) ** 2 / len(second)", "np.float64(sd_b) ** 2 / len(first)"),
        ("ddof=1", "ddof=0"),
        ("quantile(n - 1)", "quantile(n)"),
        ("sd / math.sqrt(n)", "sd / n"),
        ("(len(p_values) - rank)", "len(p_values)"),
        ("largest = max(largest, min(1.0,", "largest = max(0.0, min(1.0,"),
        ("min(1.0, (len", "min(9.0, (len"),
        ("return self.p_holm < LEVEL", "return self.p < LEVEL"),
        ("means[i] - means[j]", "means[j] - means[i]"),
        ("if len(set(values)) == 1:", "if False:"),
        ("if n < 2 or not math.isfinite(sd):", "if n < 2:"),
        ("p_value(high, df) > level", "p_value(high, df) > 2 * level"),
    ),
    *_of(
        f"{R}/comparison.py",
        f"{T}/test_comparison.py {T}/test_compare.py",
        ("max(monitors, key=monitors.count)", "monitors[0]"),
        ("repeated.append(group.pop(same))", "repeated.append(run); continue"),
        ('key.endswith(".seed") and value == run.seed', 'key.endswith(".seed")'),
        ("if 2 * count > len(settings):", "if 2 * count >= len(settings):"),
        ("if metric == monitored else", "if True else"),
        ("if value is None or math.isnan(value):", "if value is None:"),
        ('value if mode == "min" else -value', "value"),
        ("if d.significant]", "]"),
        ('"trainer.devices": int(found[2])', '"trainer.devices": 1'),
        ('settings.get("trainer.num_nodes") in (None, 1)', "True"),
        ("k in shared or k.rpartition", "k.rpartition"),
        ("repr(settings[key]) == repr(value)", "settings[key] == value"),
        ('("log_dir", "resume", "seed", FOLD)', '("log_dir", "seed", FOLD)'),
        ('("log_dir", "resume", "seed", FOLD)', '("log_dir", "resume", "seed")'),
        ("min(runs, key=lambda run", "max(runs, key=lambda run"),
    ),
    *_of(
        f"{R}/runs.py",
        f"{T}/test_comparison.py",
        ('recorded.get("metric") or ', ""),
        ('recorded.get("mode") or ', ""),
    ),
    *_of(
        f"{R}/runs.py",
        f"{T}/test_runs.py {T}/test_compare.py",
        ("kept.sort(key=lambda run: run_record.started(run.path))", "pass"),
        ("kept[-last:] if last", "kept[:last] if last"),
        ("run_record.status(self.path, self.record)", 'str(self.record.get("status"))'),
        ("if level == 0 or not run.is_symlink()]", "]"),
        ("once.setdefault(os.path.realpath(path), path)", "once.setdefault(str(path), path)"),
        ("len(content) <= METRICS", "True"),
    ),
    *_of(
        f"{R}/history.py",
        f"{T}/test_history.py {T}/test_runs.py",
        ("self.kept[:, ::2], 2 * self.stride", "self.kept[:, ::2], self.stride"),
        ("self.seen += len(steps)", "self.seen += 0"),
        ('kept |= [self.outstanding["last"]]', "pass"),
        ("(np.argmin, np.argmax)", "(np.argmin, np.argmin)"),
        (
            "_numbers(filter(None, cells)), np.isfinite(filled)",
            "_numbers(filter(None, cells)), filled == filled",
        ),
        ("if len(line) == LINE:", "if False:"),
        ("if len(header) > COLUMNS:", "if False:"),
        ("row[: len(header)] for row", "row for row"),
    ),
    *_of(
        "src/kindling/loader.py",
        "tests/kindling/test_loader.py",
        ("slice(start, min(start + block, rows))", "slice(start, start + block)"),
        ("range(skip * size // block * block, rows, block)", "range(skip * size, rows, block)"),
        ("islice(batches, max(skip - start // size, 0), None)", "batches"),
        ("given if given < len(self) else 0", "given"),
        ('state.get("group", 1)', "1"),
        ("skip, self._skip = self._skip, 0", "skip = self._skip"),
    ),
    *_of(
        "src/kindling/resumable.py",
        "tests/kindling/test_resumable.py",
        ("self._given, self._skip = self._skip, 0", "self._given = self._skip"),
        ("self.sampler.skip = self._given", "pass"),
        ("self._items()[self.skip :]", "self._items()"),
        ('state["given"] % max(len(self), 1)', 'state["given"]'),
        ("self.passes += 1", "pass"),
        (
            "splitmix64(self._seed + self.epoch) + self.passes",
            "splitmix64(self._seed + self.epoch)",
        ),
        ("items += (items * self._world_size)[:missing]", "pass"),
        ("seed_all(number >> 32)", "pass"),
        ("seed_each(self._own, number)", "pass"),
        ("return batches[: len(self)]", "return batches"),
        ("self._world_size = 1 if own else world_size", "self._world_size = world_size"),
    ),
    *_of(
        "src/kindling/process/signals.py",
        "tests/kindling/process/test_signals.py -k worker_process or first_rank or in_training",
        ("signal.set_wakeup_fd(-1)", "pass"),
        ("os.register_at_fork(after_in_child=_restore_in_worker)", "pass"),
        ("signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL", "signal.SIG_DFL"),
        ("told = ranks.number() > 0 and not ranks.has_own_console()", "told = False"),
        ('"SIGHUP": 129, ', ""),
    ),
    *_of(
        "src/kindling/process/requeue.py",
        "tests/kindling/training/test_slurm.py -k usr1 or another_signal",
        ('signals.pending_signal() == getattr(signal, "SIGUSR1", None)', "True"),
        ("if refused := ask(number):", "if refused := None:"),
    ),
    *_of(
        "src/kindling/callbacks/step_state.py",
        "tests/kindling/training/test_own_optimizers.py -k same_bits",
        ('setattr(part, flag, name not in state["frozen"])', "pass"),
    ),
    *_of(
        "src/kindling/training/resume_fit.py",
        "tests/kindling/training/test_own_optimizers.py -k misfit",
        ("if outline.optimizers and len(states) != len(outline.optimizers):", "if False:"),
        ("optimizer.load_state_dict(state)", "pass"),
        ("estimated_stepping_batches = 1000", ""),
    ),
    *_of(
        "src/kindling/files/checkpoint_archive.py",
        "tests/kindling/files/test_checkpoint_archive.py",
        ("if member.external_attr & FOLDER:", "if False:"),
        ("signed and comment == 0 and", "signed and"),
    ),
    *_of(
        "src/kindling/files/checkpoint.py",
        "tests/kindling/test_security.py tests/kindling/files/test_checkpoint.py",
        ('if "://" in str(path):', "if False:"),
    ),
    *_of(
        "src/kindling/callbacks/non_finite.py",
        "tests/kindling/callbacks/test_non_finite.py",
        ('self.skipped = state_dict["skipped"]', "pass"),
        ("if trainer.world_size == 1:", "if True:"),
        ("losses, self._losses = self._losses, []", "losses = self._losses"),
        ("raise self._error(trainer, named, trainer.global_step)", "return"),
        ("steps, self._unlogged = self._unlogged, []", "steps = self._unlogged"),
        ("steps, self._unchecked = self._unchecked, []", "steps = self._unchecked"),
        ("del outputs", "pass  # del outputs"),
    ),
    *_of(
        "src/kindling/training/resume_changes.py",
        "tests/kindling/training/test_resume_changes.py",
        ('state["wait_count"] < new', "True"),
        ('state["stopping_reason"] = 0', "pass"),
        (
            '("callbacks.checkpointing.monitor", "callbacks.checkpointing.mode")',
            '("callbacks.checkpointing.monitor",)',
        ),
        ("update(best_score=None, kept=[])", "update(best_score=None)"),
        ('group["lr"] = scaled(group["lr"])', 'group["lr"] = new'),
        ('scaled(group.get("initial_lr", old or new))', "new"),
        ('[scaled(rate) for rate in schedule["base_lrs"]]', 'schedule["base_lrs"]'),
    ),
    *_of(
        "src/kindling/config/untrusted.py",
        "tests/kindling/test_security.py",
        ("count > MAX_VALUES or len(place) > MAX_DEPTH", "count > MAX_VALUES"),
        ("and len(k) < 100)", ")"),
    ),
    *_of(
        "src/kindling/speed/call_plan.py",
        "tests/kindling/speed/test_call_plan.py tests/kindling/speed/test_steps.py",
        ("asked.append(trainer.max_steps - trainer.global_step)", "pass"),
        ("asked.append(trainer.max_epochs - now)", "pass"),
        ("self._most - done % self._most", "self._most"),
        ("*self._validations(index)", ""),
    ),
    *_of(
        "src/kindling/speed/loops.py",
        "tests/kindling/speed/test_call_plan.py tests/kindling/speed/test_steps.py",
        ("            if self.trainer.should_stop:", "            if False:"),
        ("            self.trainer.should_stop\n            or ", "            "),
        ("or self._results  #", "#"),
        ("self._batches_that_stepped += self._stepped", "pass"),
    ),
    *_of(
        "src/kindling/speed/hooks.py",
        "tests/kindling/speed/test_honored.py",
        ("for hook in self._hooks[name]:", "for hook in []:"),
    ),
    *_of(
        "src/kindling/speed/honored.py",
        "tests/kindling/speed/test_honored.py",
        ("not in PRECISIONS or _scales(trainer)", "not in PRECISIONS"),
    ),
    *_of(
        "src/kindling/speed/honored.py",
        "tests/kindling/speed/test_call_plan.py -k those_of_one_step",
        ("if not module.automatic_optimization:", "if False:"),
    ),
    *_of(
        "src/kindling/speed/steps.py",
        "tests/kindling/speed/test_steps.py tests/kindling/speed/test_call_plan.py",
        ("output = output / self.accumulate", "pass"),
        ("if (index + 1) % frequency == 0:", "if True:"),
    ),
]
MUTATIONS = [m for m in MUTATIONS if (ROOT / m.file).parent.is_dir()]  # of rooms that are there


def applied(mutation: Mutation, project: Path) -> str:
    """Return the mutated text of a file.

    Raises:
        ValueError: the text to replace does not occur exactly once.
    """
    text = (project / mutation.file).read_text(encoding="utf-8")
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.old!r} occurs {count} times in {mutation.file}")
    return text.replace(mutation.old, mutation.new)


def result(mutation: Mutation, project: Path) -> str:
    """Run the tests of a mutation in a copy of the project; say whether it was `killed`."""
    path = project / mutation.file
    original = path.read_text(encoding="utf-8")
    files, _, names = mutation.tests.partition(" -k ")
    selected = ["-k", names] if names else []
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider"]
    try:
        path.write_text(applied(mutation, project), encoding="utf-8")
        done = subprocess.run(
            [*command, *files.split(), *selected],
            cwd=project,
            env=environment(PYTHONPATH=str(project), PYTHONDONTWRITEBYTECODE="1"),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except ValueError as error:
        return f"does not apply: {error}"
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        path.write_text(original, encoding="utf-8")
    meaning = {0: "SURVIVED", 1: "killed", 2: "killed"}  # 2: it could not be imported
    return meaning.get(done.returncode, f"not tested: {done.stdout[-300:]}{done.stderr[-300:]}")


def main(words: list[str]) -> int:
    """Run the mutations of the files that were named, or all; return the exit status."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.file for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue[Path] = Queue()
        for number in range(WORKERS):
            copy = Path(folder, str(number))
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*IGNORED))
            copies.put(copy)

        def run(mutation: Mutation) -> str:
            copy = copies.get()
            try:
                return result(mutation, copy)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(WORKERS) as pool:
            results = pool.map(run, chosen)
            counted = [_reported(*pair) for pair in zip(chosen, results, strict=True)]
    print(f"{sum(counted)} of {len(chosen)} mutants killed")
    return 0 if chosen and all(counted) else 1


def _reported(mutation: Mutation, found: str) -> bool:
    change = f"{mutation.old!r} -> {mutation.new!r}"
    print(f"{found}: {mutation.file}: {change}", flush=True)
    return found == "killed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
