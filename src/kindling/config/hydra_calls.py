"""Call Hydra so that 1.3 and 1.4 do the same, without a warning."""

import inspect
import warnings
from typing import Any

import hydra.utils

from src.kindling.layout import Plain

# Without a list of the targets that may be built, Hydra 1.4 refuses what its blocklist names, as
# 1.3.8 does, and says that 1.5 will want the list. With a list it refuses less of the blocklist,
# and a function that returns a module, of which only the function is listed.
UNLISTED = r"hydra\.utils\.instantiate\(\) resolved _target_="
IS_NEW = "_execution_whitelist_" in inspect.signature(hydra.utils.instantiate).parameters
BASE: Plain = {} if IS_NEW else {"version_base": "1.3"}  # 1.4 deprecates the argument


def instantiate(node: Plain, **known: Any) -> Any:
    """Build what a configuration names; its `_target_`s have been compared with conf/ before.

    Args:
        node: the configuration of one object, and of the objects that it is built from.
        known: arguments that the configuration lacks.
    """
    if IS_NEW:
        warnings.filterwarnings("ignore", message=rf"\s*{UNLISTED}")
    if not known:
        return hydra.utils.instantiate({**node, "_convert_": "all"})
    # Hydra 1.4 refuses a node with objects in it, and merging arguments of `instantiate` into it
    # takes 1.3 half of the time; those of a partial are passed as they are.
    return hydra.utils.instantiate({**node, "_convert_": "all", "_partial_": True})(**known)
