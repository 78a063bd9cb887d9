"""Call Hydra so that 1.3 and 1.4 do the same, without a warning."""

import inspect
from typing import Any

import hydra.utils

from src.kindling.config.targets import nodes
from src.kindling.layout import Plain

LISTED = "_execution_whitelist_"  # the `_target_`s that may be built: an argument since Hydra 1.4
IS_NEW = LISTED in inspect.signature(hydra.utils.instantiate).parameters
BASE: Plain = {} if IS_NEW else {"version_base": "1.3"}  # 1.4 deprecates the argument


def instantiate(node: Plain, **known: Any) -> Any:
    """Build what a configuration names; its `_target_`s have been compared with conf/ before.

    Args:
        node: the configuration of one object, and of the objects that it is built from.
        known: arguments that the configuration lacks.
    """
    listed = {}
    if IS_NEW:
        found = [value for place, value in nodes(node) if place and place[-1] == "_target_"]
        listed = {LISTED: found}
    # Pass one node: merging keyword arguments into it takes Hydra half of the time.
    return hydra.utils.instantiate({**node, **known, "_convert_": "all"}, **listed)
