"""Refuse devices that this machine lacks, before a run is made."""

import os
from typing import Any

import torch

from src.kindling.errors import InputError

OF_CLUSTERS = ("MASTER_ADDR", "SLURM_", "TORCHELASTIC_", "LSB_", "PBS_", "KUBERNETES_")
FOR_GPUS = ("16", "16-mixed")  # precisions that the CPU does not have


def check_device(accelerator: str, devices: Any, precision: Any, nodes: int) -> None:
    """Refuse what this machine lacks, and what Lightning would replace or wait for indefinitely.

    Raises:
        InputError: the accelerator is missing, there are more processes than cores, the CPU lacks
            the precision, or the addresses of the other nodes are not set.
    """
    if nodes > 1 and not any(name.startswith(OF_CLUSTERS) for name in os.environ):
        raise InputError(
            f"trainer.num_nodes={nodes}: the address of the first machine is not known; set"
            " MASTER_ADDR and NODE_RANK, or start the run through torchrun or a cluster"
        )
    if not runs_on_cpu(accelerator):
        return
    cores = os.cpu_count() or 1
    if isinstance(devices, int) and devices > cores:
        raise InputError(f"trainer.devices={devices}: this machine has {cores} cores")
    if str(precision) in FOR_GPUS:
        raise InputError("trainer.precision=16-mixed needs a GPU; on the CPU use bf16-mixed")


def runs_on_cpu(accelerator: str) -> bool:
    """Return whether an accelerator is the CPU on this machine.

    Raises:
        InputError: this machine lacks the accelerator.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    present = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not present.get(accelerator, True):
        raise InputError(
            f"trainer.accelerator={accelerator}: torch finds none on this machine;"
            " use trainer.accelerator=cpu or auto"
        )
    return accelerator == "cpu" or (accelerator == "auto" and not (cuda or mps))
