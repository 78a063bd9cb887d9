"""The nearest valid choice, as an error names it."""

from src.kindling.errors import nearest


def test_a_key_is_answered_with_a_key_and_not_with_its_group() -> None:
    known = ["model", "model.bias", "trainer", "trainer.max_epochs"]
    assert nearest("model.foo", known) == ": did you mean 'model.bias'?"
    assert nearest("trainer.max_epoch", known) == ": did you mean 'trainer.max_epochs'?"
    assert nearest("modle", known) == ": did you mean 'model'?"
