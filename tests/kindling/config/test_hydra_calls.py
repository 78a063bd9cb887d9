"""What Hydra builds; test_newer_hydra.py runs this file on the next Hydra too."""

from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException

from src.kindling.config.hydra_calls import instantiate

FACTORY = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}
BLOCKED = ["os.remove", "os.system", "shutil.rmtree", "subprocess.run", "builtins.eval"]
KNOWN: dict[str, dict[str, Any]] = {"nothing": {}, "an object": {"path": object()}}


def test_objects_are_passed_as_they_are():
    factory, thing = instantiate(FACTORY), object()
    node = {"_target_": "builtins.dict", "size": 3, "list": [{"a": 1}], "part": FACTORY}
    built = instantiate(node, factory=factory, things=[thing], size=4)
    assert built["factory"] is factory
    assert built["things"] == [thing]
    assert (built["size"], type(built["list"]), built["list"]) == (4, list, [{"a": 1}])
    optimizer = built["part"]([torch.nn.Parameter(torch.ones(1))])
    assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.SGD, 0.5)


def test_a_function_may_return_what_is_callable():
    linear = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    node = {"_target_": "torch.nn.utils.parametrizations.weight_norm", "module": linear}
    assert instantiate(node)(torch.ones(1, 2)).shape == (1, 3)


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("target", BLOCKED)
def test_the_blocklist_is_in_force(target, known):
    with pytest.raises(InstantiationException, match=f"'{target}' is bl[ao]cklisted"):
        instantiate({"_target_": target}, **known)
