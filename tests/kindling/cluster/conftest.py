"""One cluster for all tests of this folder, where SLURM is installed."""

import os
from collections.abc import Iterator

import pytest

from tests.kindling.cluster import daemons
from tests.kindling.cluster.daemons import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return a running cluster."""
    place = daemons.installed()
    if place is None or os.geteuid() != 0:
        pytest.skip("SLURM's daemons need Debian's packages (make test-services) and root")
    with daemons.running(place) as started:
        yield started
