"""The hooks that somebody wrote, bound once: a Trainer asks all callbacks at each point of a step.

Lightning looks up and calls every hook of every callback, and most do nothing. For a network whose
step takes 0.1 ms that is more than the step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.plugins import Precision


class Hooks:
    """Call the hooks of a Trainer's callbacks and of its module, in Lightning's order.

    Args:
        trainer: the Trainer, with its module attached and its callbacks complete.
        names: the hooks that will be called.
    """

    def __init__(self, trainer: pl.Trainer, *names: str) -> None:
        self._module = trainer.lightning_module
        self._attributes = vars(self._module)
        self._hooks = {name: self._written(trainer, name) for name in names}

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call what is written for a hook."""
        if hooks := self._hooks[name]:
            # `self.log` asks in which hook it is. Past nn.Module's __setattr__, which takes 4 us.
            attributes = self._attributes
            before, attributes["_current_fx_name"] = attributes["_current_fx_name"], name
            for hook in hooks:
                hook(*arguments)
            attributes["_current_fx_name"] = before

    def _written(self, trainer: Any, name: str) -> list[Callable[..., Any]]:
        module = self._module
        callbacks = [c for c in trainer.callbacks if is_written(c, name, pl.Callback)]
        # What monitors a metric comes after the module, which may log it at the epoch's end.
        late = [c for c in callbacks if isinstance(c, EarlyStopping | Checkpoint)]
        late = late if name == "on_train_epoch_end" else []
        own = [getattr(module, name)] if is_written(module, name, pl.LightningModule) else []
        return [
            *(_bound(c, name, trainer) for c in callbacks if c not in late),
            *own,
            *(_bound(c, name, trainer) for c in late),
        ]


def is_written(part: Any, name: str, base: type) -> bool:
    """Say whether a hook is more than the one of the base class, which does nothing."""
    hook = getattr(part, name)
    return getattr(hook, "__func__", hook) is not getattr(base, name)


def _bound(callback: pl.Callback, name: str, trainer: pl.Trainer) -> Callable[..., Any]:
    hook, module = getattr(callback, name), trainer.lightning_module
    return lambda *arguments: hook(trainer, module, *arguments)


BEFORE, MOVE, AFTER = (
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
)


def preparations(trainer: Any) -> list[Callable[[Any], Any]]:
    """Return what is done to a batch before the module sees it, as functions of the batch."""
    module, data, device = (
        trainer.lightning_module,
        trainer.datamodule,
        trainer.strategy.root_device,
    )
    found: list[Callable[[Any], Any]] = []
    if type(trainer.precision_plugin).convert_input is not Precision.convert_input:
        found.append(trainer.precision_plugin.convert_input)
    for name, where in ((BEFORE, ()), (MOVE, (device,)), (AFTER, ())):
        in_data = data is not None and is_written(data, name, pl.LightningDataModule)
        if in_data or name == MOVE or is_written(module, name, pl.LightningModule):
            hook = getattr(data if in_data else module, name)
            found.append(partial(_prepared, hook, where))
    return found


def _prepared(hook: Callable[..., Any], where: tuple[Any, ...], batch: Any) -> Any:
    return hook(batch, *where, 0)  # of loader 0


def was_logged(results: Any) -> bool:
    """Say whether `self.log` was called since the last epoch's end."""
    return any(True for _ in results.valid_items())
