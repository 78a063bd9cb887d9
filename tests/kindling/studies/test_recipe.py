"""The configuration that trials vary, checked before the first trial."""

import pytest

from src.kindling.errors import InputError
from src.kindling.studies import space
from src.kindling.studies.recipe import Recipe

pytestmark = pytest.mark.usefixtures("composing")


def recipe(*words: str, model: str = "quadrants") -> Recipe:
    return Recipe(*space.split([f"model={model}", *words]))


def test_a_trial_is_composed_as_the_command_line_would() -> None:
    import hydra
    from omegaconf import OmegaConf

    made = recipe(
        "optimizer=choice(sgd,adamw)",
        "seed=choice(1,2)",
        "model.hidden_features=range(8,65,8)",
        model="teacher",
    )
    drawn = {"optimizer": "sgd", "seed": 2, "model.hidden_features": 16}
    words = ["model=teacher", "optimizer=sgd", "seed=2", "model.hidden_features=16"]
    composed = OmegaConf.to_container(hydra.compose("train", words), resolve=True)
    assert made.settings(drawn) == composed
    assert made.settings(drawn)["data"]["seed"] == 2  # follows by interpolation


def test_each_configuration_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import hydra

    composed = []
    compose = hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda *a, **k: composed.append(a[1]) or compose(*a, **k))
    made = Recipe(*space.split(["optimizer=choice(sgd,adam)", "model=choice(line,teacher)"]))
    made.check()
    own = made.own_values()
    assert own == {"model": "line", "optimizer": "sgd"}
    assert made.config(own) is made.config({})
    other = made.settings({"model": "teacher", "optimizer": "sgd"})  # that of the first model
    assert other["optimizer"]["_target_"] == "torch.optim.SGD"
    assert len(composed) == 4


def test_a_key_is_searched_only_with_the_options_that_have_it() -> None:
    made = recipe("optimizer=choice(sgd,momentum)", "optimizer.momentum=interval(0,0.9)")
    assert [d.key for d in made.present({"optimizer": "sgd"})] == []
    assert [d.key for d in made.present({"optimizer": "momentum"})] == ["optimizer.momentum"]
    made.check()


def test_the_recipes_own_values_are_the_first_guess_where_they_can_be_drawn() -> None:
    made = recipe(
        "optimizer=choice(sgd,adam)", "optimizer.lr=interval(0.1,1)", "data.noise=interval(5,6)",
        model="line",
    )  # fmt: skip
    assert made.own_values() == {"optimizer": "sgd", "optimizer.lr": 0.1}


def test_a_guess_has_the_recipes_own_value_of_each_key_that_it_leaves_out() -> None:
    made = recipe(
        "optimizer=choice(sgd,momentum)", "optimizer.momentum=interval(0.1,0.95)",
        "optimizer.lr=interval(1e-3,1)", model="line",
    )  # fmt: skip
    assert made.completed({}) == made.own_values() == {"optimizer": "sgd", "optimizer.lr": 0.1}
    assert made.completed({"optimizer.lr": 0.1}) == made.own_values()
    own = made.completed({"optimizer": "momentum"})
    assert own == made.own_values({"optimizer": "momentum"})
    assert own["optimizer.momentum"] == 0.9
    line = "study.guesses: optimizer=sgd has no key optimizer.momentum"
    with pytest.raises(InputError, match=line):
        made.completed({"optimizer": "sgd", "optimizer.momentum": 0.5})


def test_where_models_are_searched_the_first_one_is_the_recipe() -> None:
    made = Recipe(*space.split(["model=choice(teacher,line)"]))
    assert made.own_values() == {"model": "teacher"}
    assert made.settings({})["model"] == recipe(model="teacher").settings({})["model"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("optimizer.momentum=interval(0,1)", "optimizer.momentum: there is no such key"),
        ("optimizer.lrr=interval(0,1)", "did you mean 'optimizer.lr'?"),
        ("data.batch_size=interval(1,9)", "int(interval(a,b)) draws whole numbers"),
        ("optimizer.lr=interval(-1,1)", "optimizer.lr=-1.0:"),
        ("model.label_smoothing=choice(0.1,high)", "model.label_smoothing=high:"),
        ("optimizer=choice(sgd,sgdd)", "did you mean 'sgd'?"),
        ("optimizer=choice(adam,adamw)", ""),
    ],
)
def test_a_wrong_space_is_one_line(word: str, line: str) -> None:
    if not line:
        recipe(word).check()
        return
    with pytest.raises(InputError) as raised:
        recipe(word).check()
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_key_that_no_searched_option_has_is_refused() -> None:
    with pytest.raises(InputError, match="no option of optimizer that is searched has this key"):
        recipe("optimizer=choice(sgd,adam)", "optimizer.rho=interval(0,1)").check()
