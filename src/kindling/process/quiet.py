"""Keep Lightning's advice off the console."""

import logging
import warnings

UNHELPFUL = (  # the beginnings of warnings, as regular expressions
    # A validation or test can have fewer batches than the profiler's schedule; it then records all.
    "The PyTorch Profiler default schedule will be.*",
    # Only torch 2.11 says so, of a schedule whose cycles end with the fit.
    ".*Profiler clears events at the end of each cycle.*",
    # Points are logged every n steps of the run, not of the epoch: see callbacks/training_metrics.
    ".*smaller than the logging interval.*",
    # Data without validation or test rows says so with an empty list of loaders.
    "Total length of `list` across ranks is zero.*",
    # The loader of data.py turns shuffling off by itself.
    "You requested to overfit but enabled.*",
    # Lightning 2.6 calls a part of torch's pytree that torch 2.13 is about to rename.
    ".*LeafSpec.*is deprecated.*",
    # Lightning 2.6 gathers from ranks by a function that torch 2.13 has given another name.
    ".*all_gather is deprecated.*",
    # callbacks/checkpointing.py says so, and what to do.
    ".*your dataloader is not resumable.*",
    # BaseModule makes its metrics in configure_model; it shards nothing.
    ".*WeightAveraging callback with a model that over.*",
    # training/fit.py says so, and what to do.
    "Using `DistributedSampler` with the dataloaders.*",
    # `accelerator=cpu` says so.
    "GPU available but not used.*",
    # A SLURM login node has srun; training there outside a job is intended.
    "The `srun` command is available on your system.*",
    # The rows are in memory: there is nothing that a worker process could do.
    ".*does not have many workers.*",
)


def quiet_lightning() -> None:
    """Hide Lightning's advice, and those of its warnings that say nothing new; show the others."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A profiler's table comes the same way as the advice does.
    logging.getLogger("lightning.pytorch.profilers.profiler").setLevel(logging.INFO)
    for message in UNHELPFUL:
        warnings.filterwarnings("ignore", message=message)
