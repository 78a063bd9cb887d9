"""python -m src.train: train, validate, test the best checkpoint, and say where it all is."""

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.kindling.cli import command, composition
from src.kindling.config import masking


@command.command("train")
def main(settings: DictConfig) -> float | None:
    """Start a run, or continue the one that `resume=` names; see `training/run.py` for its steps.

    Returns:
        The last value of the metric that the checkpoints go by, for sweepers that minimize one.
    """
    from src.kindling.training.run import run  # a fifth of a second that --help does not need

    raw, hydra = OmegaConf.to_container(settings), HydraConfig.get()
    plain = masking.keep_variables(raw, composition.resolved(settings))
    job = hydra.job.num if hydra.mode == RunMode.MULTIRUN else None
    typed = [word for word in hydra.overrides.task if word not in main.any_model]
    return run(plain, [*typed, *main.of_run], job).monitored


if __name__ == "__main__":
    main()
