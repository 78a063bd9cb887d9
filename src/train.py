"""python -m src.train: train, validate, test the best checkpoint, and say where it all is."""

from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.process import signals
from src.kindling.training import slurm

if TYPE_CHECKING:
    pass
from src.kindling.training.run import resume_run, start_or_resume


@command.command("train")
def main(settings: DictConfig) -> None:
    """Start a run, or continue the one that `resume=` names."""
    plain, overrides = composition.resolved(settings), list(HydraConfig.get().overrides.task)
    with signals.at_exit(slurm.requeue):
        try:
            if plain["resume"] is not None:
                resume_run(plain, overrides)
            else:
                start_or_resume(plain, overrides)
        except signals.Stopped:
            slurm.requeue()
            raise


if __name__ == "__main__":
    main()
