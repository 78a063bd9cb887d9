"""Names and places: conf/, the files of a run, the stem of a model, the words of a command."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
Plain = dict[str, Any]
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
MODES = {  # of metrics, by a word of their names
    **dict.fromkeys(("loss", "error", "mse", "mae", "rmse", "nll", "perplexity", "cost"), "min"),
    **dict.fromkeys(("distance", "wer", "seconds", "memory"), "min"),
    **dict.fromkeys(("accuracy", "acc", "auc", "auroc", "f1", "precision", "recall"), "max"),
    **dict.fromkeys(("r2", "score", "iou", "dice", "second"), "max"),
}
_own_folders: list[Path] = []

# Renamed `_target_`s in checkpoints and run directories of older versions; None: removed.
RENAMED: dict[str, str | None] = {
    "lightning.pytorch.loggers.MLFlowLogger": "src.kindling.loggers.mlflow.MLFlowLogger",
    "lightning.pytorch.loggers.WandbLogger": "src.kindling.loggers.wandb.WandbLogger",
    "src.callbacks.checkpointing.Checkpointing": (
        "src.kindling.callbacks.checkpointing.Checkpointing"
    ),
    "src.callbacks.figures.Figures": "src.kindling.callbacks.figures.Figures",
    "src.callbacks.non_finite.NonFinite": "src.kindling.callbacks.non_finite.NonFinite",
    "src.callbacks.progress.Progress": "src.kindling.callbacks.progress.Progress",
    "src.callbacks.signals.StopOnSignal": "src.kindling.callbacks.signals.StopOnSignal",
    "src.callbacks.trace.Trace": None,
    "src.callbacks.training_metrics.TrainingMetrics": (
        "src.kindling.callbacks.training_metrics.TrainingMetrics"
    ),
    "src.loggers.CSVLogger": "src.kindling.loggers.csv.CSVLogger",
    "src.loggers.TensorBoardLogger": "src.kindling.loggers.tensorboard.TensorBoardLogger",
    "src.optimizers.Muon": "src.kindling.optimizers.Muon",
    "src.schedulers.constant": "src.kindling.schedulers.constant",
    "src.schedulers.cosine": "src.kindling.schedulers.cosine",
    "src.schedulers.one_cycle": "src.kindling.schedulers.one_cycle",
    "src.schedulers.plateau": "src.kindling.schedulers.plateau",
    "src.schedulers.step": "src.kindling.schedulers.step",
    "src.strategies.DDP": "src.kindling.process.ddp.DDP",
    "src.kindling.schedulers.none": "src.kindling.schedulers.constant",
}


def with_new_targets(config: Any) -> Any:
    """Replace renamed `_target_`s in a stored configuration; only exact names match."""
    if not isinstance(config, dict):
        return config
    return {
        key: _with_new_target(
            {k: _with_new_target(v) for k, v in node.items() if not _is_gone(v)}
            if isinstance(node, dict)
            else node
        )
        for key, node in config.items()
    }


def _with_new_target(node: Any) -> Any:
    target = _target(node)
    return node | {"_target_": RENAMED[target]} if target in RENAMED else node


def _is_gone(node: Any) -> bool:
    return RENAMED.get(_target(node), "") is None


def _target(node: Any) -> str:
    target = node.get("_target_") if isinstance(node, dict) else None
    return target if isinstance(target, str) else ""


def conf_folders() -> list[Path]:
    """Return conf/ and the folders that the user adds to it (--config-dir, hydra.searchpath)."""
    return [CONF, *_own_folders]


def conf_texts(pattern: str = "**/*.yaml") -> Iterator[tuple[Path, Path, str]]:
    """Yield the YAMLs of these folders: the folder, the file, and its text."""
    for folder in conf_folders():
        for path in sorted(folder.glob(pattern)):
            yield folder, path, path.read_text(encoding="utf-8")


def command_yaml(name: str) -> Plain:
    """Return the content of a command's own YAML in conf/, as it is written."""
    content: Plain = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def own_folders() -> list[Path]:
    """Return the absolute paths of the folders that the user adds to conf/."""
    return list(_own_folders)


@contextmanager
def added_folders(folders: list[Path]) -> Iterator[None]:
    """Add these folders to conf/ in this process, within the block."""
    before = own_folders()
    _own_folders[:] = folders
    try:
        yield
    finally:
        _own_folders[:] = before


def folder_arguments(folders: list[str]) -> list[str]:
    """Return the command-line arguments that add these folders to conf/."""
    first, more = folders[:1], folders[1:]
    searchpath = ",".join(f'"{folder}"' for folder in more)
    return [
        *(f"--config-dir={folder}" for folder in first),
        *([f"hydra.searchpath=[{searchpath}]"] if more else []),
    ]


def model_stem(config: Plain) -> str:
    """Return the name of the configured model in conf/model/ and src/models/: `fizzbuzz`."""
    return str(config["model"]["_target_"]).split(".")[-2]


def mode_of(metric: str) -> str | None:
    """Infer from a metric's name whether lower ("min") or higher ("max") values are better.

    Returns:
        None if the name does not tell.
    """
    words = reversed(metric.rpartition("/")[2].split("_"))
    return next((MODES[word] for word in words if word in MODES), None)


def flat(node: Plain, prefix: str = "") -> Plain:
    """Return the values of nested settings by their dotted keys: {"optimizer.lr": 0.01, ...}."""
    found: Plain = {}
    for key, value in node.items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def program(name: str) -> list[str]:
    """Return how to start a command: as the user started this one, by its script or with python."""
    prefix, _, own = Path(sys.argv[0]).stem.rpartition("-")
    if prefix and (Path(__file__).parents[1] / f"{own}.py").is_file():
        return [f"{prefix}-{name}"]
    return ["python", "-m", f"src.{name}"]


def install_extra(extra: str) -> str:
    """Return the command that installs an extra, for a clone or for the installed project."""
    script, *module = program("train")
    if module:
        return f"pip install -e '.[{extra}]'"
    return f"pip install '{script.removesuffix('-train')}[{extra}]'"


def as_started(text: str) -> str:
    """Return a text with its commands in the form in which the user started this one."""
    return re.sub(r"python -m src\.(\w+)", lambda found: " ".join(program(found[1])), text)


def start(name: str) -> list[str]:
    """Return the first words of a command line: the command, and the folders added to conf/."""
    return [*program(name), *folder_arguments([str(folder) for folder in _own_folders])]


def command_line(name: str, **settings: str) -> str:
    """Return a command line with these settings, quoted for Hydra and for a shell."""
    return shlex.join([*start(name), *(setting(*item) for item in settings.items())])


def setting(key: str, value: str) -> str:
    """Return key=value, the value quoted for Hydra where it needs to be."""
    if not re.fullmatch(r"[\w./@%+-]+", value, re.ASCII):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{key}={value}"
