"""Refuse devices that this machine lacks, before a run is made."""

import os
from typing import Any

import torch

from src.kindling.errors import InputError

FOR_GPUS = ("16", "16-mixed")  # precisions that the CPU does not have


def check_device(accelerator: str, devices: Any, precision: Any) -> None:
    """Refuse what this machine lacks, and what Lightning would replace.

    Raises:
        InputError: the accelerator is missing, a GPU is missing, there are more processes than
            cores, or the CPU lacks the precision or is given a list.
    """
    if not runs_on_cpu(accelerator):
        _check_gpus(devices)
        return
    cores = os.cpu_count() or 1
    if isinstance(devices, int) and devices > cores:
        raise InputError(f"trainer.devices={devices}: this machine has {cores} cores")
    if isinstance(devices, list):
        raise InputError(
            f"trainer.devices={devices}: only GPUs have numbers; use trainer.devices=1"
        )
    if str(precision) in FOR_GPUS:
        raise InputError("trainer.precision=16-mixed needs a GPU; on the CPU use bf16-mixed")


def _check_gpus(devices: Any) -> None:
    present = max(torch.cuda.device_count(), 1)  # Apple's GPU is always one
    numbers = [devices - 1] if isinstance(devices, int) else devices
    if isinstance(numbers, list) and any(number >= present for number in numbers):
        counted = "1 GPU, number 0" if present == 1 else f"{present} GPUs, numbers from 0"
        raise InputError(f"trainer.devices={devices}: this machine has {counted}")


def runs_on_cpu(accelerator: str, key: str = "trainer.accelerator") -> bool:
    """Return whether an accelerator, the value of a key, is the CPU on this machine.

    Raises:
        InputError: this machine lacks the accelerator.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    present = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not present.get(accelerator, True):
        raise InputError(
            f"{key}={accelerator}: torch finds none on this machine; use {key}=cpu or auto"
        )
    return accelerator == "cpu" or (accelerator == "auto" and not (cuda or mps))
