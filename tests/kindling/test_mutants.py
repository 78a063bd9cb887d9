"""Each mutation of `make mutants` still applies: its text is in the file, once, and in Python."""

import ast

import pytest

from tests.conftest import ROOT
from tests.kindling.mutants import MUTATIONS, applied


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.old}")
def test_a_mutation_applies(mutation):
    ast.parse(applied(mutation, ROOT))
