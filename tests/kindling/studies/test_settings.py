"""The direction of a metric, and the ranges of the options of samplers and pruners."""

import inspect

import pytest
import yaml

from src.kindling.config import ranges, signatures
from src.kindling.config.values import misfit
from src.kindling.errors import InputError
from src.kindling.layout import CONF
from src.kindling.studies.settings import directions

TOO_FAR = {
    **dict.fromkeys(("n_startup_trials", "n_warmup_steps", "n_startup_steps"), -1),
    **dict.fromkeys(("interval_steps", "n_min_trials", "n_ei_candidates"), 0),
    **dict.fromkeys(("min_resource", "max_resource"), 0),
    **dict.fromkeys(("population_size", "reduction_factor"), 1),
    "min_early_stopping_rate": -1,
    "p_threshold": 1.5,
}
# Optuna makes these, and a trial then fails, or the setting has no effect.
MADE = {"TPESampler", "CmaEsSampler", "GPSampler", "HyperbandPruner"}


def test_a_metric_is_optimized_as_given_or_as_its_checkpoints_or_as_its_name_says() -> None:
    kept: dict[str, str | None] = {"val/gap": "min"}
    assert directions(["val/gap", "val/auc", "val/loss"], None, kept) == ["min", "max", "min"]
    assert directions(["val/gap"], "max", kept) == ["max"]
    with pytest.raises(InputError, match=r"study\.mode: is val/gap better when lower \(min\)"):
        directions(["val/loss", "val/gap"], None, {"": "min"})


@pytest.mark.filterwarnings("ignore:.*experimental")
@pytest.mark.parametrize("option", sorted(p.stem for p in CONF.glob("study/[sp]*/*.yaml")))
def test_what_is_out_of_range_is_refused_by_optuna_or_has_no_use_there(option: str) -> None:
    [path] = CONF.glob(f"study/[sp]*/{option}.yaml")
    node = yaml.safe_load(path.read_text())
    kind = signatures.locate(node["_target_"])
    for name in inspect.signature(kind).parameters.keys() & TOO_FAR.keys():
        assert misfit(TOO_FAR[name], ranges.OPTUNA[name])
        assert name not in node or misfit(node[name], ranges.OPTUNA[name]) is None
        if kind.__name__ not in MADE:
            with pytest.raises(ValueError, match=r"\S"):
                kind(**{name: TOO_FAR[name]})
