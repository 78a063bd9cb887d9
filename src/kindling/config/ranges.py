"""What torch and Lightning refuse beyond their annotations, which they would say seconds later.

A test holds every line against the library: what is refused here is refused there as well, or does
there what nobody can mean.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Batches = Share | NonNegativeInt  # a share of them, or so many
OrUnlimited = Annotated[int, Field(ge=-1)]  # -1: without limit

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
    # A package that adds an accelerator or strategy to Lightning's adds its name here.
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
    # More than one machine has is refused once torch has counted; no machine has as many as these.
    "devices": Annotated[int, Field(ge=1, le=1024)] | Literal[-1] | str | list[NonNegativeInt],
    "num_nodes": Annotated[int, Field(ge=1, le=100_000)],
    "max_epochs": OrUnlimited,
    "min_epochs": NonNegativeInt,
    "max_steps": OrUnlimited,
    "min_steps": NonNegativeInt,
    "max_time": Annotated[str, Field(pattern=DURATION)] | dict[str, int],
    "limit_train_batches": Batches,
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


# What build.py decides itself, and what to use instead.
DECIDED = {
    "logger": "logger=none, or another option of logger=",
    "callbacks": "an option of callbacks=, a YAML in conf/callbacks/",
    "enable_checkpointing": "callbacks=none, or ~callbacks.checkpointing",
    "enable_progress_bar": "~callbacks.progress",
    "default_root_dir": "log_dir=FOLDER",
    "plugins": "precision= and strategy= of trainer",
    "barebones": "logger=none callbacks=none",
}


def decided(target: str, argument: str) -> str | None:
    """Return what to use in place of an argument that the builder sets itself; None for others."""
    return DECIDED.get(argument) if target == "lightning.pytorch.Trainer" else None


def tighter_annotation(target: str, argument: str) -> Any:
    """Return an annotation to hold an argument to, besides its own; Any where there is none."""
    if target.startswith("torch.optim."):
        return OPTIMIZER.get(argument, Any)
    return TRAINER.get(argument, Any) if target == "lightning.pytorch.Trainer" else Any
