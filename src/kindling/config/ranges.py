"""Ranges that torch, Lightning and Optuna want beyond their annotations, checked before they load.

A test compares every line with the library, which must refuse the same values or accept them with
an effect that nobody can want.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
SomeBatches = Annotated[float, Field(gt=0, le=1)] | PositiveInt
Batches = Share | NonNegativeInt  # a fraction or a number of batches
OrUnlimited = Annotated[int, Field(ge=-1)]  # -1: no limit

DURATION = r"^\d+:\d\d?:\d\d?:\d\d?$"
PATTERNS = {DURATION: 'must be "DD:HH:MM:SS" in quotes'}

OPTIMIZER = {
    "lr": NonNegativeFloat,
    "eps": NonNegativeFloat,
    "weight_decay": NonNegativeFloat,
    "momentum": NonNegativeFloat,
    "betas": tuple[BelowOne, BelowOne],
    "alpha": NonNegativeFloat,
    "lr_decay": NonNegativeFloat,
    "initial_accumulator_value": NonNegativeFloat,
}
TRAINER = {
    # For a package that registers an accelerator or strategy with Lightning, add its name here.
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
    "strategy": Literal[
        "auto",
        "ddp",
        "ddp_find_unused_parameters_false",
        "ddp_find_unused_parameters_true",
        "ddp_fork",
        "ddp_fork_find_unused_parameters_false",
        "ddp_fork_find_unused_parameters_true",
        "ddp_notebook",
        "ddp_notebook_find_unused_parameters_false",
        "ddp_notebook_find_unused_parameters_true",
        "ddp_spawn",
        "ddp_spawn_find_unused_parameters_false",
        "ddp_spawn_find_unused_parameters_true",
        "deepspeed",
        "deepspeed_stage_1",
        "deepspeed_stage_2",
        "deepspeed_stage_2_offload",
        "deepspeed_stage_3",
        "deepspeed_stage_3_offload",
        "deepspeed_stage_3_offload_nvme",
        "fsdp",
        "fsdp_cpu_offload",
        "single_device",
        "single_tpu",
        "single_xla",
        "xla",
        "xla_debug",
    ],
    # No machine has more devices than this; Lightning checks against the actual number.
    "devices": Annotated[int, Field(ge=1, le=1024)] | Literal[-1] | str | list[NonNegativeInt],
    "num_nodes": Annotated[int, Field(ge=1, le=100_000)],
    "max_epochs": OrUnlimited,
    "min_epochs": NonNegativeInt,
    "max_steps": OrUnlimited,
    "min_steps": NonNegativeInt,
    "max_time": Annotated[str, Field(pattern=DURATION)] | dict[str, int],
    "limit_train_batches": SomeBatches,
    "limit_val_batches": Batches,
    "limit_test_batches": Batches,
    "overfit_batches": Batches,
    "fast_dev_run": bool | NonNegativeInt,
    "check_val_every_n_epoch": PositiveInt,
    "num_sanity_val_steps": OrUnlimited,
    "log_every_n_steps": NonNegativeInt,
    "accumulate_grad_batches": PositiveInt,
    "gradient_clip_val": NonNegativeFloat,
    "gradient_clip_algorithm": Literal["norm", "value"],
    "profiler": Literal["simple", "advanced", "pytorch", "xla"],
}
OPTUNA = {  # samplers and pruners; some accept more, and a trial then fails, or none is pruned
    "n_startup_trials": NonNegativeInt,
    "n_ei_candidates": PositiveInt,
    "population_size": Annotated[int, Field(ge=2)],
    "n_warmup_steps": NonNegativeInt,
    "interval_steps": PositiveInt,
    "n_min_trials": PositiveInt,
    "n_startup_steps": NonNegativeInt,
    "p_threshold": Share,
    "min_resource": PositiveInt | Literal["auto"],
    "max_resource": PositiveInt | Literal["auto"],
    "reduction_factor": Annotated[int, Field(ge=2)],
    "min_early_stopping_rate": NonNegativeInt,
}

# Trainer arguments that build.py sets itself -> the settings to use instead.
SET_BY_RUN = {
    "logger": "logger=none, or another option of logger=",
    "callbacks": "an option of callbacks=, a YAML in conf/callbacks/",
    "enable_checkpointing": "callbacks=none, or ~callbacks.checkpointing",
    "enable_progress_bar": "~callbacks.progress",
    "default_root_dir": "log_dir=FOLDER",
    "plugins": "precision= and strategy= of trainer",
    "barebones": "logger=none callbacks=none",
}


def replacement(target: str, argument: str) -> str | None:
    """Return the setting to use in place of an argument that build.py sets; None for others."""
    return SET_BY_RUN.get(argument) if target == "lightning.pytorch.Trainer" else None


def tighter_annotation(target: str, argument: str) -> Any:
    """Return an annotation that an argument must also match; Any if there is none."""
    if target.startswith("torch.optim."):
        return OPTIMIZER.get(argument, Any)
    if target.startswith("optuna."):
        return OPTUNA.get(argument, Any)
    return TRAINER.get(argument, Any) if target == "lightning.pytorch.Trainer" else Any
